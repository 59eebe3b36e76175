-- A call is about to be made, of ? message, function, fence, attempt, ordinal, method, url, key. Nothing if the claim (the message
-- and the fence again) under which it would be made no longer holds.
INSERT INTO calls (message, `function`, fence, attempt, ordinal, method, url, `key`, state, intended_at)
SELECT ?, ?, ?, ?, ?, ?, ?, ?, 'intended', TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6))
FROM messages m JOIN queue q ON q.seq = m.seq
WHERE m.id = ? AND q.fence = ? AND q.state = 'running'
