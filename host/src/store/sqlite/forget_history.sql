-- Of these (a JSON array), what has not been redriven in the meantime. The `+` keeps the index of all that ended out of it.
DELETE FROM semel_history WHERE +state = ?2 AND +ended_at <= ?3 AND seq IN (SELECT value FROM json_each(?1)) RETURNING seq
