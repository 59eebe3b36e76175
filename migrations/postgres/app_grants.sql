-- What the roles of one app may call of the engine's, and on record whose they are; harmless to repeat. Run by the engine's
-- login. Filled in: {login}, {owner} as quoted identifiers ({owner} is the engine, if the app has none); {app_text},
-- {login_text}, {owner_text} as quoted texts, the last one may be NULL.

-- As the first migration said; a restore without rights has lost it.
REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA semel, semel_api FROM PUBLIC;
ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;
GRANT USAGE ON SCHEMA semel_api TO {login}, {owner};
GRANT EXECUTE ON FUNCTION
    semel_api.enter, semel_api.ack, semel_api.state_get, semel_api.state_set, semel_api.state_delete, semel_api.state_add,
    semel_api.state_scan, semel_api.subscribers, semel_api.publish, semel_api.rehearse TO {login};
GRANT EXECUTE ON FUNCTION semel_api.migrated TO {owner};

INSERT INTO semel.apps (app, login, owner) VALUES ({app_text}, {login_text}, {owner_text})
ON CONFLICT (app) DO UPDATE SET login = excluded.login, owner = excluded.owner;
