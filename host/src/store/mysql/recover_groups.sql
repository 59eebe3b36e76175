-- Locks the groups of lost claims (a list) as far as nobody has them, and returns their buckets: one session that hangs while it
-- acknowledges must not keep everything else from being recovered.
SELECT g.bucket
FROM (
    SELECT DISTINCT CRC32(CONCAT(t.f, '/', t.g)) MOD 1000 AS bucket
    FROM JSON_TABLE(?, '$[*]' COLUMNS (f VARBINARY(190) PATH '$.f', g VARBINARY(512) PATH '$.g')) AS t
) AS wanted
STRAIGHT_JOIN `groups` g FORCE INDEX (PRIMARY) ON g.bucket = wanted.bucket
FOR UPDATE SKIP LOCKED
