-- Waiting messages of removed functions, with their groups; removed functions stay for ever, mostly with none.
SELECT w.seq, w.`function`, CONVERT(w.group_key USING utf8mb4) AS group_key
FROM functions f STRAIGHT_JOIN queue w FORCE INDEX (queue_claim) ON w.`function` = f.name AND w.state = 'available'
WHERE f.removed = 1 LIMIT ?
