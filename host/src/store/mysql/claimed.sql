-- What was claimed (a list of seqs), bodies included, in the order of acceptance.
SELECT q.seq, q.fence, q.attempt, q.attempts_before, q.claimed_at, m.id, m.event, m.`function`, m.topic,
       CONVERT(m.group_key USING utf8mb4) AS group_key, m.content_type, m.headers, m.body, m.accepted_at
FROM JSON_TABLE(?, '$[*]' COLUMNS (seq BIGINT PATH '$')) AS t
STRAIGHT_JOIN queue q FORCE INDEX (PRIMARY) ON q.seq = t.seq
STRAIGHT_JOIN messages m FORCE INDEX (PRIMARY) ON m.seq = t.seq
