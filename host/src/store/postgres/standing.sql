-- Where a message stands, its group, and whether its function is deployed.
SELECT m.seq, COALESCE(q.state, h.state) AS state, m.function, m.group_key,
       EXISTS (SELECT 1 FROM semel.functions f WHERE f.name = m.function AND NOT f.removed) AS deployed
FROM semel.messages m
LEFT JOIN semel.queue q ON q.seq = m.seq
LEFT JOIN semel.history h ON h.seq = m.seq
WHERE m.id = $1
