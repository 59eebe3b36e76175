-- The calls of one message (?1) with an ordinal below ?2, as they were intended.
SELECT id, message, function, fence, attempt, ordinal, method, url, key, state, status, detail, intended_at, ended_at
FROM semel_calls WHERE message = ?1 AND ordinal < ?2 ORDER BY id
