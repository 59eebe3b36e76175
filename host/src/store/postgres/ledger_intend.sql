-- A call is about to be made. Nothing if the claim ($3 fence) under which it would be made no longer holds.
INSERT INTO semel.calls (message, function, fence, attempt, ordinal, method, url, key, state, intended_at)
SELECT $1, $2, $3, $4, $5, $6, $7, $8, 'intended', semel.now()
FROM semel.messages m JOIN semel.queue q ON q.seq = m.seq
WHERE m.id = $1 AND q.fence = $3 AND q.state = 'running'
RETURNING id
