-- Renews the leases of claims (the same list) that heartbeat_find.sql has locked (a list of seqs).
UPDATE JSON_TABLE(?, '$[*]' COLUMNS (seq BIGINT PATH '$')) AS t
STRAIGHT_JOIN JSON_TABLE(?, '$[*]' COLUMNS (
    seq BIGINT PATH '$.seq', fence BIGINT PATH '$.fence', token VARCHAR(64) PATH '$.token', lease BIGINT PATH '$.lease'
)) AS c ON c.seq = t.seq
STRAIGHT_JOIN queue q FORCE INDEX (PRIMARY) ON q.seq = t.seq
SET q.lease_until = TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6)) + c.lease
