-- The calls of messages that are forgotten, as a JSON array of their ids.
DELETE FROM semel_calls WHERE message IN (SELECT value FROM json_each(?1))
