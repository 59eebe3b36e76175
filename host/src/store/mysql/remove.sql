UPDATE functions SET removed = 1, paused = 0 WHERE name = ? AND removed = 0
