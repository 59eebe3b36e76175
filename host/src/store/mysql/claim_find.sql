-- Due messages of one function, most urgent first, under lock; past rows that other hosts are claiming.
SELECT seq FROM queue FORCE INDEX (queue_claim)
WHERE `function` = ? AND state = 'available' AND suspect = ? AND due = 1
ORDER BY urgency, available_at, seq LIMIT ? FOR UPDATE SKIP LOCKED
