-- Marks a begin-once message as begun, once, by whoever holds it.
UPDATE semel_queue SET begun_at = $4
WHERE seq = $1 AND fence = $2 AND token_hash = $3 AND state = 'running' AND begun_at IS NULL
