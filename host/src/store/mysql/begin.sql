-- Marks a begin-once message as begun, once, by whoever holds it, and renews its lease: after a standstill of the host, or
-- on a slow disk, it may be over already, and recovery on its way would take what has just begun for a doubt.
UPDATE queue SET begun_at = TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6)), lease_until = TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6)) + ?
WHERE seq = ? AND fence = ? AND token_hash = ? AND state = 'running' AND begun_at IS NULL
