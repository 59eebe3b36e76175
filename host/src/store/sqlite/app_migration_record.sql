INSERT INTO semel_app_migrations (app, name, function, checksum, applied_at) VALUES (?1, ?2, ?3, ?4, ?5)
