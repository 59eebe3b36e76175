-- A key that never ends outlives its message, and remembers how that ended.
UPDATE semel.keys SET ended_as = $2 WHERE message = ANY (ARRAY(SELECT id FROM semel.messages WHERE seq = ANY ($1)))
