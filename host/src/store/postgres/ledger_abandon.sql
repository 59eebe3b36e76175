-- What a claim left open.
UPDATE semel.calls SET state = 'unknown', detail = $3, ended_at = semel.now()
WHERE message = $1 AND fence = $2 AND state = 'intended'
