-- The end of those that came after the mark.
INSERT INTO semel_history
    (seq, function, state, attempt, fence, version, available_at, ended_at, answered, answer_content_type, answer_headers,
     answer_body)
SELECT seq, function, 'completed', 1, 1, 1, accepted_at, accepted_at, 1, 'application/json', '[]',
       CAST('{"counter":"counter-1","count":1}' AS BLOB)
FROM semel_messages WHERE seq > ?1
