SELECT bytes FROM semel_components WHERE digest = ?1
