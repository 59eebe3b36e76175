UPDATE semel.functions SET removed = true, paused = false WHERE name = $1 AND NOT removed
