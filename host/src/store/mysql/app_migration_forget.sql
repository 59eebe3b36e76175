DELETE FROM app_migration_steps WHERE app = ? AND name = ?
