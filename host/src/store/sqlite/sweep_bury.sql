-- The history row of a waiting message whose function is gone.
INSERT INTO semel_history
    (seq, function, state, attempt, attempts_before, fence, version, available_at, ended_at, error_kind, error_message)
SELECT seq, function, 'dead', attempt, attempts_before, fence, version, available_at, ?2, 'removed',
       'its function was removed; deploy it again, then redrive the message'
FROM semel_queue WHERE seq = ?1
