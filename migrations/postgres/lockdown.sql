-- What only a superuser can close, in this database and no other. Harmless to repeat; again after pg_upgrade, after a restore,
-- and after a new app was made. {engine} is filled in as a quoted identifier.
-- Closed here: functions that change settings, end sessions, take locks or space outside of tables, hide SQL in a string, or
-- show what other sessions do. Temporary files and processes of apps are limited where no guest can change it.

DO $$
DECLARE
    f regprocedure;
BEGIN
    FOR f IN
        SELECT oid::regprocedure FROM pg_catalog.pg_proc
        WHERE pronamespace = 'pg_catalog'::regnamespace AND prokind = 'f' AND (
            proname IN (
                'set_config', 'setval', 'pg_notify', 'pg_terminate_backend', 'pg_cancel_backend', 'pg_logical_emit_message',
                'pg_export_snapshot', 'pg_sleep', 'pg_sleep_for', 'pg_sleep_until', 'query_to_xml',
                'query_to_xml_and_xmlschema', 'query_to_xmlschema', 'cursor_to_xml', 'cursor_to_xmlschema', 'ts_stat',
                'pg_copy_logical_replication_slot', 'pg_create_logical_replication_slot', 'loread', 'lowrite',
                'pg_stat_get_activity', 'pg_lock_status', 'pg_prepared_xact', 'pg_get_backend_memory_contexts',
                'pg_log_backend_memory_contexts')
            OR starts_with(proname, 'lo_') OR starts_with(proname, 'pg_advisory') OR starts_with(proname, 'pg_try_advisory')
            OR starts_with(proname, 'database_to_xml') OR starts_with(proname, 'schema_to_xml')
            OR starts_with(proname, 'table_to_xml') OR (proname = 'ts_rewrite' AND pronargs = 2))
    LOOP
        EXECUTE format('REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC', f);
        EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO {engine}', f);
    END LOOP;
END
$$;
-- A function of an app's own runs what the gate refuses, with the app's rights. Whoever wants functions in an app's
-- migrations grants this to the app's owner again.
REVOKE USAGE ON LANGUAGE sql, plpgsql FROM PUBLIC;
GRANT USAGE ON LANGUAGE sql, plpgsql TO {engine};
REVOKE UPDATE ON pg_catalog.pg_settings FROM PUBLIC;
REVOKE SELECT ON pg_catalog.pg_stat_activity, pg_catalog.pg_locks FROM PUBLIC;
GRANT SELECT ON pg_catalog.pg_stat_activity, pg_catalog.pg_locks TO {engine};

DO $$
DECLARE
    r name;
BEGIN
    FOR r IN
        SELECT login FROM semel.apps
    LOOP
        EXECUTE format('ALTER ROLE %I IN DATABASE %I SET temp_file_limit = %L', r, current_database(), '256MB');
    END LOOP;
END
$$;
