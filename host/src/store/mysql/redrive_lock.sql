-- Of these (a list), what can go back into the queue, under lock: of two at once one finds nothing.
SELECT h.seq, h.state FROM JSON_TABLE(?, '$[*]' COLUMNS (seq BIGINT PATH '$')) AS t STRAIGHT_JOIN history h FORCE INDEX (PRIMARY) ON h.seq = t.seq
WHERE h.state IN ('dead', 'in-doubt', 'cancelled')
  AND EXISTS (SELECT 1 FROM functions f WHERE f.name = h.`function` AND f.removed = 0)
FOR UPDATE
