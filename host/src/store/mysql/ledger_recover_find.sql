-- What was being called under claims that hold no longer: their hosts are lost, or stood still, or the message was taken
-- back while its host died. At the end of each recovery, so that a call is unknown as soon as its message is free again.
SELECT c.id FROM calls c FORCE INDEX (calls_state)
WHERE c.state = 'intended' AND NOT EXISTS (
    SELECT 1 FROM messages m JOIN queue q ON q.seq = m.seq
    WHERE m.id = c.message AND q.state = 'running' AND q.fence = c.fence
)
ORDER BY c.id LIMIT 1000 FOR UPDATE SKIP LOCKED
