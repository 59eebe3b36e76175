-- Plans of the engine's functions are made once for a session. They take arrays, and a plan for the very array at hand looks
-- cheaper than one for any array: so the server made it anew with each call, which took longer than all that it then did. All
-- of them find rows by their keys, however many there are.
DO $$
DECLARE
    f regprocedure;
BEGIN
    FOR f IN
        SELECT p.oid::regprocedure FROM pg_catalog.pg_proc p
        JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
        JOIN pg_catalog.pg_language l ON l.oid = p.prolang
        WHERE n.nspname IN ('semel', 'semel_api') AND l.lanname = 'plpgsql'
    LOOP
        EXECUTE format('ALTER FUNCTION %s SET plan_cache_mode = force_generic_plan', f);
    END LOOP;
END
$$;
