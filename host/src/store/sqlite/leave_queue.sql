DELETE FROM semel_queue WHERE seq = ?1
