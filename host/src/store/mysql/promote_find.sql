-- Messages whose time has come, or whose turn in their group, under lock: past rows that somebody else promotes.
SELECT seq FROM queue FORCE INDEX (queue_delayed)
WHERE due = 0 AND blocked = 0 AND available_at <= TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6)) ORDER BY available_at LIMIT 1000 FOR UPDATE SKIP LOCKED
