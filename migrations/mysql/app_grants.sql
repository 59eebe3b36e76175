-- What the login of one app may; harmless to repeat. Run by the engine's login. Filled in: {login} as a quoted name, {pattern} as
-- in app_users.sql, {engine} the engine's database as a quoted identifier.
GRANT SELECT, INSERT, UPDATE, DELETE ON {pattern}.* TO {login}@'%';
GRANT EXECUTE ON PROCEDURE {engine}.`enter` TO {login}@'%';
GRANT EXECUTE ON PROCEDURE {engine}.`ack` TO {login}@'%';
GRANT EXECUTE ON PROCEDURE {engine}.`publish` TO {login}@'%';
GRANT EXECUTE ON PROCEDURE {engine}.`subscribers` TO {login}@'%';
GRANT EXECUTE ON PROCEDURE {engine}.`state_get` TO {login}@'%';
GRANT EXECUTE ON PROCEDURE {engine}.`state_set` TO {login}@'%';
GRANT EXECUTE ON PROCEDURE {engine}.`state_delete` TO {login}@'%';
GRANT EXECUTE ON PROCEDURE {engine}.`state_add` TO {login}@'%';
GRANT EXECUTE ON PROCEDURE {engine}.`state_scan` TO {login}@'%';
GRANT EXECUTE ON PROCEDURE {engine}.`rehearse` TO {login}@'%';
