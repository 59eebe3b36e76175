-- A statement of a migration was applied: ? app, name, step, digest.
INSERT INTO app_migration_steps (app, name, step, digest) VALUES (?, ?, ?, ?)
