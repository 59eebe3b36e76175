-- The calls of one message with an ordinal below ?, as they were intended.
SELECT id, message, `function`, fence, attempt, ordinal, method, url, `key`, state, status, detail, intended_at, ended_at
FROM calls WHERE message = ? AND ordinal < ? ORDER BY id
