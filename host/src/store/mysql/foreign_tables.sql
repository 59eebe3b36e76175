-- Tables of an app (? its database) that a rollback would not reach.
SELECT CONCAT(table_name, ' (', COALESCE(engine, 'damaged'), ')') FROM information_schema.tables
WHERE table_schema = ? AND table_type = 'BASE TABLE' AND (engine IS NULL OR engine <> 'InnoDB') ORDER BY table_name
