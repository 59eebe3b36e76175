-- Where a message stands, its group, and whether its function is deployed.
SELECT m.seq, COALESCE(q.state, h.state) AS state, m.`function`, CONVERT(m.group_key USING utf8mb4) AS group_key,
       EXISTS (SELECT 1 FROM functions f WHERE f.name = m.`function` AND f.removed = 0) AS deployed
FROM messages m
LEFT JOIN queue q ON q.seq = m.seq
LEFT JOIN history h ON h.seq = m.seq
WHERE m.id = ?
