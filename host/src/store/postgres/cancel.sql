-- Out of the queue, whoever works on it: its acknowledgement will find nothing. It waits for one that is under way: no row
-- then, since that one was faster. With the record of the attempt that a person ended; whoever ran it adds what it used.
WITH gone AS (DELETE FROM semel.queue WHERE seq = $1 RETURNING *),
ended AS (
    INSERT INTO semel.attempts (seq, fence, attempt, function, version, host, claimed_at, ended_at, outcome, error)
    SELECT seq, fence, attempt, function, version, host, claimed_at, semel.now(), 'cancelled',
           'cancelled by a person while it ran'
    FROM gone WHERE state = 'running'
    ON CONFLICT (seq, fence) DO NOTHING
),
kept AS (
    INSERT INTO semel.history
        (seq, function, state, attempt, attempts_before, fence, version, available_at, ended_at, error_kind, error_message)
    SELECT seq, function, 'cancelled', attempt, attempts_before, fence, version, available_at, semel.now(), 'cancelled',
           'cancelled by a person'
    FROM gone
)
SELECT state FROM gone
