SELECT checksum, function FROM semel_app_migrations WHERE app = ?1 AND name = ?2
