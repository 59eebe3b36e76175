-- A call is about to be made.
INSERT INTO semel_calls (message, function, fence, attempt, ordinal, method, url, key, state, intended_at)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, 'intended', ?9)
