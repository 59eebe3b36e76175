DELETE FROM semel.decisions WHERE seq = ANY ($1)
