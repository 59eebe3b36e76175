-- Whether there are messages whose time has come, and who are not due yet.
SELECT EXISTS (
    SELECT 1 FROM queue FORCE INDEX (queue_delayed)
    WHERE due = 0 AND blocked = 0 AND available_at <= TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6))
)
