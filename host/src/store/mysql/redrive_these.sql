-- Of these (a list), what is still in that state, oldest first. Not `completed`, whatever the state says.
SELECT h.seq, CONVERT(m.group_key USING utf8mb4) AS group_key
FROM JSON_TABLE(?, '$[*]' COLUMNS (seq BIGINT PATH '$')) AS t STRAIGHT_JOIN history h FORCE INDEX (PRIMARY) ON h.seq = t.seq STRAIGHT_JOIN messages m FORCE INDEX (PRIMARY) ON m.seq = t.seq
WHERE h.`function` = ? AND h.state = ? AND h.state <> 'completed'
  AND EXISTS (SELECT 1 FROM functions f WHERE f.name = h.`function` AND f.removed = 0)
ORDER BY h.seq
