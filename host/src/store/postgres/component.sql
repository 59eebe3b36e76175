SELECT bytes FROM semel.components WHERE digest = $1
