-- Of these (? a list of seqs), what is still lost at ?, under lock, and how it ends: not what somebody else recovers or
-- acknowledges at this moment.
SELECT q.seq, q.`function`, CONVERT(q.group_key USING utf8mb4) AS group_key, q.begun_at IS NOT NULL AS begun,
       q.attempt - q.attempts_before >= q.max_attempts AS used_up
FROM JSON_TABLE(?, '$[*]' COLUMNS (seq BIGINT PATH '$')) AS t STRAIGHT_JOIN queue q FORCE INDEX (PRIMARY) ON q.seq = t.seq
WHERE q.state = 'running' AND q.lease_until <= ?
FOR UPDATE SKIP LOCKED
