-- A migration was applied to its end: ? app, name, function, checksum.
INSERT INTO app_migrations (app, name, `function`, checksum, applied_at) VALUES (?, ?, ?, ?, TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6)))
