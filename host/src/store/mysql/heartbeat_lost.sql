-- Of the same list, the claims that do not hold any more.
SELECT c.seq, c.fence
FROM JSON_TABLE(?, '$[*]' COLUMNS (
    seq BIGINT PATH '$.seq', fence BIGINT PATH '$.fence', token VARCHAR(64) PATH '$.token', lease BIGINT PATH '$.lease'
)) AS c
LEFT JOIN queue q ON q.seq = c.seq AND q.fence = c.fence AND q.token_hash = UNHEX(c.token) AND q.state = 'running'
WHERE q.seq IS NULL
