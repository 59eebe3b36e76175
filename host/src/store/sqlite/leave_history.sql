DELETE FROM semel_history WHERE seq = ?1
