-- Whether a claim holds on a message: ?1 id, ?2 fence.
SELECT 1 FROM semel_messages m JOIN semel_queue q ON q.seq = m.seq
WHERE m.id = ?1 AND q.fence = ?2 AND q.state = 'running'
