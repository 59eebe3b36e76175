-- The users of one app, after app_database.sql; harmless to repeat, and it changes the password. Run by the engine's login.
-- Filled in: {login}, {owner} as quoted names; {password}, {owner_password} as quoted texts; {pattern} the app's database as a
-- quoted identifier in which `_` and `%` are themselves; {connections}, how many sessions the app's guests have on all hosts
-- together: a quarter of the server's is left to others. {time}: on MariaDB, how long a statement may run if nobody ends it.
-- The owner has no login but while its migrations run.
CREATE USER IF NOT EXISTS {login}@'%' IDENTIFIED BY {password};
CREATE USER IF NOT EXISTS {owner}@'%' IDENTIFIED BY {owner_password} ACCOUNT LOCK;
ALTER USER {login}@'%' IDENTIFIED BY {password} WITH MAX_USER_CONNECTIONS {connections}{time} ACCOUNT UNLOCK;
-- Of the owner: no routines, triggers or events, which could change the settings of a guest's session; and no right to pass on
-- what it has.
GRANT SELECT, INSERT, UPDATE, DELETE, CREATE, DROP, ALTER, INDEX, REFERENCES, CREATE VIEW, SHOW VIEW,
    CREATE TEMPORARY TABLES, LOCK TABLES ON {pattern}.* TO {owner}@'%';
