-- In the session of the app's owner, after the migration's text and in its transaction: $1 token of app_migration_begin.sql.
SELECT semel_api.migrated($1)
