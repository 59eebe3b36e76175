-- The calls of messages that are forgotten, before their ids are.
DELETE FROM semel.calls WHERE message = ANY (ARRAY(SELECT id FROM semel.messages WHERE seq = ANY ($1)))
