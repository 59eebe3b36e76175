-- Out of the queue, whoever works on it: its acknowledgement will find nothing.
INSERT INTO semel_history
    (seq, function, state, attempt, attempts_before, fence, version, available_at, ended_at, error_kind, error_message)
SELECT seq, function, 'cancelled', attempt, attempts_before, fence, version, available_at, ?2, 'cancelled', 'cancelled by a person'
FROM semel_queue WHERE seq = ?1
