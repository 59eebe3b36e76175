SELECT bytes FROM components WHERE digest = ?
