-- A key that never ends outlives its message, and remembers how that ended.
UPDATE semel_keys SET ended_as = ?2
WHERE message IN (SELECT id FROM semel_messages WHERE seq IN (SELECT value FROM json_each(?1)))
