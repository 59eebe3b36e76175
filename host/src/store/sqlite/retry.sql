-- Gives a claimed message back, due later. No suspect: its end is on record.
UPDATE semel_queue
SET state = 'available', available_at = ?4, due = 0, begun_at = NULL, lease_until = NULL, error_kind = ?5, error_message = ?6
WHERE seq = ?1 AND fence = ?2 AND token_hash = ?3 AND state = 'running'
