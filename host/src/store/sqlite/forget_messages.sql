DELETE FROM semel_messages WHERE seq IN (SELECT value FROM json_each(?1)) RETURNING id
