-- Of these claims (a list of seqs, fences, hashes of tokens, leases) those that still hold, under lock. A row that somebody has
-- locked (it is being acknowledged) is left for the next time: one session that hangs must not keep the others' leases from
-- being renewed.
SELECT q.seq
FROM JSON_TABLE(?, '$[*]' COLUMNS (
    seq BIGINT PATH '$.seq', fence BIGINT PATH '$.fence', token VARCHAR(64) PATH '$.token', lease BIGINT PATH '$.lease'
)) AS c
STRAIGHT_JOIN queue q FORCE INDEX (PRIMARY) ON q.seq = c.seq AND q.fence = c.fence AND q.token_hash = UNHEX(c.token) AND q.state = 'running'
FOR UPDATE SKIP LOCKED
