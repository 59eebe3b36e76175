-- Messages of a deployed function that could be redriven, oldest first, after ?. Not `completed`, whatever the state says.
SELECT h.seq, m.id FROM history h FORCE INDEX (history_state) STRAIGHT_JOIN messages m FORCE INDEX (PRIMARY) ON m.seq = h.seq
WHERE h.`function` = ? AND h.state = ? AND h.state <> 'completed' AND h.seq > ?
  AND EXISTS (SELECT 1 FROM functions f WHERE f.name = h.`function` AND f.removed = 0)
ORDER BY h.seq LIMIT ?
