UPDATE semel.functions SET paused = $2 WHERE name = $1 AND NOT removed
