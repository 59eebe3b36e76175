-- The record of an attempt that a person ended; whoever ran it adds what it used.
INSERT INTO semel_attempts (seq, fence, attempt, function, version, host, claimed_at, ended_at, outcome, error)
SELECT seq, fence, attempt, function, version, host, claimed_at, ?2, 'cancelled', 'cancelled by a person while it ran'
FROM semel_queue WHERE seq = ?1 AND state = 'running'
ON CONFLICT (seq, fence) DO NOTHING
