DELETE FROM semel.messages WHERE seq = ANY ($1)
