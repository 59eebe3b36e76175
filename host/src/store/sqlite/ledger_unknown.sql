-- A page of calls of which nobody knows whether they happened, newest first.
SELECT id, message, function, fence, attempt, ordinal, method, url, key, state, status, detail, intended_at, ended_at
FROM semel_calls WHERE state = 'unknown' AND ($1 IS NULL OR id < $1) ORDER BY id DESC LIMIT $2
