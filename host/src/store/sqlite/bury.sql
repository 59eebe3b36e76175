-- The history row of a message that is given up, if this very claim still holds; `acknowledge.sql` takes it out.
INSERT INTO semel_history
    (seq, function, state, attempt, attempts_before, fence, version, available_at, ended_at, error_kind, error_message)
SELECT seq, function, 'dead', attempt, attempts_before, fence, version, available_at, ?4, ?5, ?6
FROM semel_queue WHERE seq = ?1 AND fence = ?2 AND token_hash = ?3 AND state = 'running'
