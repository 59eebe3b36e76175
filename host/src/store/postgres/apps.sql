-- The apps that have ever been deployed or prepared, each with its login (the engine's own, if it has none) and whether there
-- is such a role.
SELECT app, coalesce(a.login, current_user::text), EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = a.login)
FROM (SELECT app FROM semel.versions WHERE app <> 'semel' UNION SELECT app FROM semel.apps) AS known LEFT JOIN semel.apps a USING (app) ORDER BY app
