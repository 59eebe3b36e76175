SELECT checksum, function FROM semel.app_migrations WHERE app = $1 AND name = $2
