-- Where a message stands, its group, and whether its function is deployed.
SELECT m.seq, COALESCE(q.state, h.state) AS state, m.function, m.group_key,
       EXISTS (SELECT 1 FROM semel_functions f WHERE f.name = m.function AND f.removed = 0) AS deployed
FROM semel_messages m
LEFT JOIN semel_queue q ON q.seq = m.seq
LEFT JOIN semel_history h ON h.seq = m.seq
WHERE m.id = ?1
