UPDATE semel_functions SET paused = ?2 WHERE name = ?1 AND removed = 0
