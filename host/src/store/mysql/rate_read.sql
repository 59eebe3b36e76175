-- Locks functions (a list) with a limit over all hosts, and reads the rate's place in time. Those that somebody claims from at
-- this moment are left out, and so are left alone: SKIP LOCKED on messages alone would go beyond the limit.
SELECT f.name, f.rate_at, TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6))
FROM JSON_TABLE(?, '$[*]' COLUMNS (name VARCHAR(190) PATH '$')) AS t STRAIGHT_JOIN functions f FORCE INDEX (PRIMARY) ON f.name = t.name
FOR UPDATE SKIP LOCKED
