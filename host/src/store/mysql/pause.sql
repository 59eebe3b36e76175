UPDATE functions SET paused = ? WHERE name = ? AND removed = 0
