-- A page of calls, newest first: a call is where its newest row is that fits. Each of $1 function, $2 state, $3 message,
-- $4 before may be NULL. All rows of each call, since bounds are over all attempts.
WITH page AS (
    SELECT c.id AS place, c.message, c.ordinal, c.method, c.url, c.key
    FROM semel_calls c
    WHERE ($1 IS NULL OR c.function = $1) AND ($2 IS NULL OR c.state = $2)
      AND ($3 IS NULL OR c.message = $3) AND ($4 IS NULL OR c.id < $4)
      AND NOT EXISTS (
          SELECT 1 FROM semel_calls n
          WHERE n.message = c.message AND n.ordinal = c.ordinal AND n.method = c.method AND n.url = c.url
            AND n.key = c.key AND n.id > c.id AND ($2 IS NULL OR n.state = $2)
      )
    ORDER BY c.id DESC LIMIT $5
)
SELECT a.id, a.message, a.function, a.fence, a.attempt, a.ordinal, a.method, a.url, a.key, a.state, a.status, a.detail,
       a.intended_at, a.ended_at
FROM page p
JOIN semel_calls a ON a.message = p.message AND a.ordinal = p.ordinal AND a.method = p.method AND a.url = p.url
  AND a.key = p.key
ORDER BY p.place DESC, a.id
