-- How many messages wait for a function.
SELECT COUNT(*) FROM queue FORCE INDEX (queue_claim) WHERE `function` = ? AND state = 'available'
