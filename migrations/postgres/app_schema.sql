-- What guests of one app may do in its schema; harmless to repeat. Run by whoever owns the schema, or the engine for them.
-- Filled in as quoted identifiers: {app}, {login}, {owner}.

REVOKE ALL ON SCHEMA {app} FROM PUBLIC;
GRANT USAGE ON SCHEMA {app} TO {login};
-- The four rights by name: ALL would include TRIGGER, with which a guest attaches a function to a table.
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {app} TO {login};
GRANT USAGE ON ALL SEQUENCES IN SCHEMA {app} TO {login};
ALTER DEFAULT PRIVILEGES FOR ROLE {owner} IN SCHEMA {app} GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO {login};
ALTER DEFAULT PRIVILEGES FOR ROLE {owner} IN SCHEMA {app} GRANT USAGE ON SEQUENCES TO {login};
