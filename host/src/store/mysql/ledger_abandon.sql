-- What a claim left open.
UPDATE calls FORCE INDEX (calls_message) SET state = 'unknown', detail = ?, ended_at = TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6))
WHERE message = ? AND fence = ? AND state = 'intended'
