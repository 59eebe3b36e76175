-- The statements of a migration that were applied before it broke off.
SELECT digest FROM app_migration_steps WHERE app = ? AND name = ? ORDER BY step
