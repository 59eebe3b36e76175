-- What the login of an app had before it became one: nothing is left. After app_users.sql and before app_grants.sql, and only when
-- the login is taken into use: its guests are without rights in between. {login}: quoted name.
REVOKE ALL PRIVILEGES, GRANT OPTION FROM {login}@'%';
