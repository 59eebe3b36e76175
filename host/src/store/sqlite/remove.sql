UPDATE semel_functions SET removed = 1, paused = 0 WHERE name = ?1 AND removed = 0
