-- Gives keys back that were taken in this transaction for messages that a full backlog does not let in.
DELETE FROM semel.keys k USING unnest($1::text[], $2::text[]) AS t (function, key)
WHERE k.function = t.function AND k.key = t.key
