-- Recovery, 1 of 3: a record for each claim that was lost (a list of seqs under lock).
INSERT INTO attempts
    (seq, fence, attempt, `function`, version, host, claimed_at, ended_at, outcome, error, logs)
SELECT q.seq, q.fence, q.attempt, q.`function`, q.version, q.host, q.claimed_at, TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6)), 'host-lost',
       'the claim ended without a record: its host was lost, or stood still longer than the lease', '[]'
FROM JSON_TABLE(?, '$[*]' COLUMNS (seq BIGINT PATH '$')) AS t STRAIGHT_JOIN queue q FORCE INDEX (PRIMARY) ON q.seq = t.seq
ON DUPLICATE KEY UPDATE seq = attempts.seq
