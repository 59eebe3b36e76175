SELECT checksum, `function` FROM app_migrations WHERE app = ? AND name = ?
