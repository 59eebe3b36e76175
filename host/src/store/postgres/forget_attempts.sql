DELETE FROM semel.attempts WHERE seq = ANY ($1)
