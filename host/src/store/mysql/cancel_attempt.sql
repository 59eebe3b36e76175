-- The record of the attempt that a person ended; whoever ran it adds what it used.
INSERT INTO attempts (seq, fence, attempt, `function`, version, host, claimed_at, ended_at, outcome, error, logs)
SELECT seq, fence, attempt, `function`, version, host, claimed_at, TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6)), 'cancelled', 'cancelled by a person while it ran', '[]'
FROM queue WHERE seq = ? AND state = 'running'
ON DUPLICATE KEY UPDATE seq = attempts.seq
