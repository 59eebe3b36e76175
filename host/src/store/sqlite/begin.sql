-- Marks a begin-once message as begun, once, by whoever holds it. Not when the lease is over (a host that stood still):
-- recovery may be on its way to hand it out again, and what has not begun is nobody's doubt.
UPDATE semel_queue SET begun_at = $4
WHERE seq = $1 AND fence = $2 AND token_hash = $3 AND state = 'running' AND begun_at IS NULL AND lease_until > $4
