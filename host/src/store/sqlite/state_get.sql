SELECT value FROM semel_state WHERE namespace = ?1 AND key = ?2
