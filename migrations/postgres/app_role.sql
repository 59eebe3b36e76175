-- The roles and the schema of one app; harmless to repeat, and it changes the password. Run by the engine's login, before
-- app_schema.sql and app_grants.sql, in one transaction.
-- Filled in by the caller: {app}, {login}, {owner}, {engine}, {database} as quoted identifiers; {app_text}, {login_text},
-- {owner_text} as quoted texts; {password} as quoted text (a SCRAM verifier, so that no log holds the password).
-- Refuse before: an app named `semel`, `semel_api`, `public`, `information_schema` or `pg_…`, or longer than 34 characters; a
-- login that is the engine's own. Roles belong to the whole server, so their names hold the database's.

DO $$
BEGIN
    BEGIN
        CREATE ROLE {login} LOGIN NOINHERIT;
    EXCEPTION WHEN duplicate_object THEN NULL;
    END;
    BEGIN
        CREATE ROLE {owner} NOLOGIN NOINHERIT;
    EXCEPTION WHEN duplicate_object THEN NULL;
    END;
END
$$;
-- Not NOCREATEDB and the like: from Postgres 16 on, who may not give a power may not take it either. walls.sql looks.
ALTER ROLE {login} LOGIN NOINHERIT PASSWORD {password};
-- The guests of one app, on all hosts together, leave a quarter of the server's connections to others.
DO $$
BEGIN
    EXECUTE format('ALTER ROLE %I CONNECTION LIMIT %s', {login_text}, current_setting('max_connections')::bigint * 3 / 4);
END
$$;

-- The engine may end the app's sessions and make the owner's schema. It never reads or writes what the app owns: triggers,
-- views and defaults in there would run as the engine.
GRANT {login}, {owner} TO {engine};

REVOKE ALL ON DATABASE {database} FROM PUBLIC;
REVOKE ALL ON SCHEMA public FROM PUBLIC;
GRANT CONNECT ON DATABASE {database} TO {login}, {owner};

-- A function of the app's own may have set something for its login, for ever.
ALTER ROLE {login} RESET ALL;
ALTER ROLE {login} IN DATABASE {database} RESET ALL;
-- What a session of the app starts with; a guest may change it where lockdown.sql was not run, so nothing rests on it.
ALTER ROLE {login} IN DATABASE {database} SET search_path = {app};
ALTER ROLE {owner} IN DATABASE {database} SET search_path = {app};
ALTER ROLE {login} IN DATABASE {database} SET default_transaction_isolation = 'read committed';
ALTER ROLE {login} IN DATABASE {database} SET idle_in_transaction_session_timeout = '5min';
ALTER ROLE {login} IN DATABASE {database} SET statement_timeout = '5min';
ALTER ROLE {login} IN DATABASE {database} SET lock_timeout = '1min';

CREATE SCHEMA IF NOT EXISTS {app} AUTHORIZATION {owner};

-- What was there before becomes the owner's: made when there was one login for all, or restored from another database.
-- This changes who owns it and runs none of it.
DO $$
DECLARE
    v_owner oid := (SELECT oid FROM pg_catalog.pg_roles WHERE rolname = {owner_text});
    v_schema oid := (SELECT oid FROM pg_catalog.pg_namespace WHERE nspname = {app_text});
    v_change text;
BEGIN
    FOR v_change IN
        SELECT 'ALTER SCHEMA {app}' FROM pg_catalog.pg_namespace WHERE oid = v_schema AND nspowner <> v_owner
        UNION ALL
        SELECT format('ALTER TABLE %s', c.oid::regclass) FROM pg_catalog.pg_class c
        WHERE c.relnamespace = v_schema AND c.relowner <> v_owner AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
          -- A sequence that belongs to a column goes with its table.
          AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE c.relkind = 'S' AND d.objid = c.oid
                          AND d.classid = 'pg_catalog.pg_class'::regclass AND d.deptype IN ('a', 'i'))
        UNION ALL
        SELECT format('ALTER ROUTINE %s', p.oid::regprocedure) FROM pg_catalog.pg_proc p
        WHERE p.pronamespace = v_schema AND p.proowner <> v_owner
        UNION ALL
        SELECT format('ALTER TYPE %s', t.oid::regtype) FROM pg_catalog.pg_type t
        LEFT JOIN pg_catalog.pg_class c ON c.oid = t.typrelid
        WHERE t.typnamespace = v_schema AND t.typowner <> v_owner
          AND (t.typtype IN ('e', 'd', 'r') OR (t.typtype = 'c' AND c.relkind = 'c'))
    LOOP
        EXECUTE format('%s OWNER TO %I', v_change, {owner_text});
    END LOOP;
END
$$;
