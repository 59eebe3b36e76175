-- Which wall stands around the login of one app ($1, the login's name; $2, the app's schema), for `semel doctor`: one row
-- per wall; `open` says what a guest can do where it does not stand; `shared` ones are the same for all apps. The first
-- ones must stand; from `settings` on they need lockdown.sql, and their absence is made up for by the host's own clock,
-- resets and watchdog, not closed.
WITH login AS (
    SELECT oid, rolname, rolsuper, rolcreaterole, rolcreatedb, rolreplication, rolbypassrls, rolinherit, rolconnlimit
    FROM pg_catalog.pg_roles WHERE rolname = $1
),
foreign_schema AS (
    SELECT n.oid, n.nspname FROM pg_catalog.pg_namespace n
    WHERE n.nspname NOT IN ('pg_catalog', 'information_schema', 'semel_api', $2) AND NOT starts_with(n.nspname, 'pg_t')
),
api AS (
    SELECT p.oid, p.prosecdef, p.proconfig, p.proacl, p.proowner FROM pg_catalog.pg_proc p
    JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace AND n.nspname = 'semel_api'
),
callable AS (
    SELECT p.proname FROM login l, pg_catalog.pg_proc p
    WHERE p.pronamespace = 'pg_catalog'::regnamespace AND has_function_privilege(l.oid, p.oid, 'EXECUTE')
),
wall (place, name, stands, open) AS (
    SELECT 0, 'login of its own', $1 <> current_user,
    'guests run as the engine''s own login, so whoever deploys here has to be trusted with all of it: give the login '
        'CREATEROLE and run semel migrate, or name a login under [apps] in semel.toml'
    UNION ALL
    SELECT 1, 'login', EXISTS (
        SELECT FROM login WHERE NOT (rolsuper OR rolcreaterole OR rolcreatedb OR rolreplication OR rolbypassrls OR rolinherit)
    ) AND NOT EXISTS (SELECT FROM login l JOIN pg_catalog.pg_auth_members m ON m.member = l.oid),
    'there is no such login, or it has powers or memberships: run semel migrate, and ALTER ROLE … NOINHERIT'
    UNION ALL
    SELECT 2, 'engine tables', NOT EXISTS (
        SELECT FROM login l, pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
        WHERE n.nspname = 'semel' AND c.relkind IN ('r', 'v', 'm', 'f', 'p')
          AND (has_schema_privilege(l.oid, n.oid, 'USAGE')
            OR has_table_privilege(l.oid, c.oid, 'SELECT, INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER'))
    ), 'guests read or write the engine''s tables'
    UNION ALL
    SELECT 3, 'other schemas', NOT EXISTS (
        SELECT FROM login l, foreign_schema s WHERE has_schema_privilege(l.oid, s.oid, 'USAGE, CREATE')
    ), 'guests reach schemas of other apps, or public'
    UNION ALL
    SELECT 4, 'nothing can be made', NOT EXISTS (
        SELECT FROM login l, pg_catalog.pg_namespace n
        WHERE has_schema_privilege(l.oid, n.oid, 'CREATE') OR has_database_privilege(l.oid, current_database(), 'CREATE, TEMP')
    ), 'guests create tables, functions, triggers or temporary tables'
    UNION ALL
    SELECT 5, 'four rights', NOT EXISTS (
        SELECT FROM login l, pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
        WHERE n.nspname = $2 AND (c.relowner = l.oid
          OR (c.relkind IN ('r', 'p') AND has_table_privilege(l.oid, c.oid, 'TRUNCATE, REFERENCES, TRIGGER'))
          OR (c.relkind = 'S' AND has_sequence_privilege(l.oid, c.oid, 'UPDATE')))
    ), 'guests own a table, attach triggers, truncate, or set sequences: grant the four rights by name'
    UNION ALL
    SELECT 6, 'definer functions', EXISTS (SELECT FROM api) AND NOT EXISTS (
        SELECT FROM api a WHERE NOT a.prosecdef OR a.proacl IS NULL OR a.proowner IN (SELECT oid FROM login)
          OR 'search_path=pg_catalog, pg_temp' <> ALL (coalesce(a.proconfig, '{}'))
          OR EXISTS (SELECT FROM aclexplode(a.proacl) x WHERE x.grantee = 0)
    ), 'the functions of semel_api are not as semel migrate makes them'
    UNION ALL
    SELECT 7, 'guard', EXISTS (
        SELECT FROM pg_catalog.pg_trigger t WHERE t.tgrelid = to_regclass('semel.guard') AND t.tgname = 'guard'
          AND t.tgenabled IN ('O', 'A') AND t.tgdeferrable AND t.tginitdeferred
    ), 'a guest that ends the transaction itself commits without an acknowledgement'
    UNION ALL
    SELECT 10, 'extensions', NOT EXISTS (
        SELECT FROM pg_catalog.pg_extension WHERE extname IN ('dblink', 'postgres_fdw', 'file_fdw', 'adminpack')
    ),
    'an extension in this database leads out of it'
    UNION ALL
    SELECT 20, 'settings', NOT EXISTS (SELECT FROM callable WHERE proname = 'set_config')
        AND NOT EXISTS (SELECT FROM login l WHERE has_table_privilege(l.oid, 'pg_catalog.pg_settings', 'UPDATE')),
    'guests change settings of their session (time limits, memory)'
    UNION ALL
    SELECT 21, 'sessions', NOT EXISTS (SELECT FROM callable WHERE proname IN ('pg_terminate_backend', 'pg_cancel_backend')),
    'guests end other sessions of their app'
    UNION ALL
    SELECT 22, 'locks', NOT EXISTS (SELECT FROM callable WHERE proname LIKE 'pg_advisory%' OR proname LIKE 'pg_try_advisory%'),
    'a guest can fill the server''s lock table, which stops everybody'
    UNION ALL
    SELECT 23, 'notifications', NOT EXISTS (SELECT FROM callable WHERE proname = 'pg_notify'),
    'guests forge wake-ups, which only cost time'
    UNION ALL
    SELECT 24, 'space', NOT EXISTS (
        SELECT FROM callable WHERE starts_with(proname, 'lo_') OR proname IN ('lowrite', 'pg_logical_emit_message')
    ),
    'guests write large objects and the log beside their tables'
    UNION ALL
    SELECT 25, 'hidden SQL', NOT EXISTS (SELECT FROM callable WHERE proname IN ('query_to_xml', 'ts_stat', 'table_to_xml')),
    'guests run SQL inside of a string (with their own rights)'
    UNION ALL
    SELECT 26, 'activity', NOT EXISTS (SELECT FROM callable WHERE proname IN ('pg_stat_get_activity', 'pg_lock_status')),
    'guests see the statements of their app''s other sessions (never a token)'
    UNION ALL
    SELECT 27, 'temporary files', EXISTS (
        SELECT FROM login l JOIN pg_catalog.pg_db_role_setting s ON s.setrole = l.oid, unnest(s.setconfig) c
        WHERE starts_with(c, 'temp_file_limit=')
    ), 'one sort of a guest fills the disk'
    UNION ALL
    SELECT 28, 'functions', NOT EXISTS (
        SELECT FROM pg_catalog.pg_language l, pg_catalog.pg_namespace n
        WHERE n.nspname = $2 AND l.lanname IN ('sql', 'plpgsql') AND has_language_privilege(n.nspowner, l.oid, 'USAGE')
    ) AND NOT EXISTS (SELECT FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace AND n.nspname = $2),
    'app migrations make functions, which run what the gate refuses (with the app''s own rights)'
    UNION ALL
    SELECT 29, 'connections', EXISTS (SELECT FROM login WHERE rolconnlimit > 0), 'one app takes all connections'
)
SELECT name, stands, CASE WHEN NOT stands THEN open END AS open, place BETWEEN 6 AND 10 AS shared FROM wall ORDER BY place
