-- Gives a claimed message back, due $4 microseconds later. No suspect: its end is on record.
UPDATE semel.queue
SET state = 'available', available_at = semel.now() + $4, due = $4 <= 0, begun_at = NULL, lease_until = NULL,
    error_kind = $5, error_message = $6
WHERE seq = $1 AND fence = $2 AND token_hash = $3 AND state = 'running'
