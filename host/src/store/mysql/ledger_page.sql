-- A page of calls, newest first: a call is where its newest row is that fits. Each of function, state, message, before may be
-- NULL; the values come as often as they are asked for. All rows of each call, since bounds are over all attempts.
WITH page AS (
    SELECT c.id AS place, c.message, c.ordinal, c.method, c.url, c.`key`
    FROM calls c
    WHERE (? IS NULL OR c.`function` = ?) AND (? IS NULL OR c.state = ?) AND (? IS NULL OR c.message = ?)
      AND (? IS NULL OR c.id < ?)
      AND NOT EXISTS (
          SELECT 1 FROM calls n
          WHERE n.message = c.message AND n.ordinal = c.ordinal AND n.method = c.method AND n.url = c.url
            AND n.`key` = c.`key` AND n.id > c.id AND (? IS NULL OR n.state = ?)
      )
    ORDER BY c.id DESC LIMIT ?
)
SELECT a.id, a.message, a.`function`, a.fence, a.attempt, a.ordinal, a.method, a.url, a.`key`, a.state, a.status, a.detail,
       a.intended_at, a.ended_at
FROM page p
STRAIGHT_JOIN calls a FORCE INDEX (calls_message) ON a.message = p.message AND a.ordinal = p.ordinal AND a.method = p.method AND a.url = p.url
  AND a.`key` = p.`key`
ORDER BY p.place DESC, a.id
