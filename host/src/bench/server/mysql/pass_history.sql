-- The end of those that came after the mark.
INSERT INTO history
    (seq, `function`, state, attempt, fence, version, available_at, ended_at, answered, answer_content_type, answer_headers,
     answer_body)
SELECT seq, `function`, 'completed', 1, 1, 1, accepted_at, accepted_at, 1, 'application/json', '[]',
       '{"counter":"counter-1","count":1}'
FROM messages WHERE seq > ?
