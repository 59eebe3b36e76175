-- Of these (a list), what still waits and nobody else sweeps, under lock. So is the function's row, so that a deploy which
-- brings it back comes before or after.
SELECT q.seq
FROM JSON_TABLE(?, '$[*]' COLUMNS (seq BIGINT PATH '$')) AS t STRAIGHT_JOIN queue q FORCE INDEX (PRIMARY) ON q.seq = t.seq STRAIGHT_JOIN functions f FORCE INDEX (PRIMARY) ON f.name = q.`function`
WHERE q.state = 'available' AND f.removed = 1
FOR UPDATE SKIP LOCKED
