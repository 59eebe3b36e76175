UPDATE semel.store SET schema = $1 WHERE id = 1
