-- The calls of one message, as they were intended.
SELECT id, message, function, fence, attempt, ordinal, method, url, key, state, status, detail, intended_at, ended_at
FROM semel_calls WHERE message = $1 ORDER BY id
