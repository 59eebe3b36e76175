-- Marks a begin-once message as begun, once, by whoever holds it, and renews its lease: after a standstill of the host, or
-- on a slow disk, it may be over already, and recovery on its way would take what has just begun for a doubt.
UPDATE semel_queue SET begun_at = ?4, lease_until = ?4 + ?5
WHERE seq = ?1 AND fence = ?2 AND token_hash = ?3 AND state = 'running' AND begun_at IS NULL
