-- A history row for each of these messages (? their state, what happened, for people; a list of seqs), which are under lock and
-- leave the queue next (leave_queue.sql).
INSERT INTO history
    (seq, `function`, state, attempt, attempts_before, fence, version, available_at, ended_at, error_kind, error_message)
SELECT q.seq, q.`function`, ?, q.attempt, q.attempts_before, q.fence, q.version, q.available_at, TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6)), ?, ?
FROM JSON_TABLE(?, '$[*]' COLUMNS (seq BIGINT PATH '$')) AS t STRAIGHT_JOIN queue q FORCE INDEX (PRIMARY) ON q.seq = t.seq
