DELETE FROM semel_decisions WHERE seq IN (SELECT value FROM json_each(?1))
