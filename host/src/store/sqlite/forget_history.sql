-- Of these (a JSON array), what has not been redriven in the meantime.
DELETE FROM semel_history WHERE state = $2 AND seq IN (SELECT value FROM json_each($1)) RETURNING seq
