-- Gives a claimed message back, due ? microseconds later. No suspect: its end is on record.
UPDATE queue
SET state = 'available', available_at = TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6)) + ?, due = ?, begun_at = NULL, lease_until = NULL, error_kind = ?, error_message = ?
WHERE seq = ?
