-- The history row of an acknowledged message; worth nothing unless the acknowledgement after it changes its row.
INSERT INTO semel_history
    (seq, function, state, attempt, attempts_before, fence, version, available_at, ended_at, answered,
     answer_content_type, answer_headers, answer_body)
SELECT seq, function, 'completed', attempt, attempts_before, fence, version, available_at, ?2, ?3, ?4, ?5, ?6
FROM semel_queue WHERE seq = ?1
