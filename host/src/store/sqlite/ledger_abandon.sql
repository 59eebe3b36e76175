-- What a claim left open.
UPDATE semel_calls SET state = 'unknown', detail = ?3, ended_at = ?4
WHERE message = ?1 AND fence = ?2 AND state = 'intended'
