-- A page of calls, newest first: a call is where its newest row is that fits. Each of ?1 function, ?2 state, ?3 message,
-- ?4 before may be NULL. All rows of each call, since bounds are over all attempts.
-- Three ways to the rows, of which one is gone: by message, by state, or else all of them, the newest first.
WITH fitting AS (
    SELECT * FROM semel_calls WHERE message = ?3 AND (?2 IS NULL OR state = ?2)
    UNION ALL SELECT * FROM semel_calls WHERE ?3 IS NULL AND state = ?2
    UNION ALL SELECT * FROM semel_calls WHERE ?3 IS NULL AND ?2 IS NULL
), page AS (
    SELECT c.id AS place, c.message, c.ordinal, c.method, c.url, c.key
    FROM fitting c
    WHERE (?1 IS NULL OR c.function = ?1) AND c.id < coalesce(?4, 9223372036854775807)
      AND NOT EXISTS (
          SELECT 1 FROM semel_calls n
          WHERE n.message = c.message AND n.ordinal = c.ordinal AND n.method = c.method AND n.url = c.url
            AND n.key = c.key AND n.id > c.id AND (?2 IS NULL OR n.state = ?2)
      )
    ORDER BY c.id DESC LIMIT ?5
)
SELECT a.id, a.message, a.function, a.fence, a.attempt, a.ordinal, a.method, a.url, a.key, a.state, a.status, a.detail,
       a.intended_at, a.ended_at
FROM page p
JOIN semel_calls a ON a.message = p.message AND a.ordinal = p.ordinal AND a.method = p.method AND a.url = p.url
  AND a.key = p.key
ORDER BY p.place DESC, a.id
