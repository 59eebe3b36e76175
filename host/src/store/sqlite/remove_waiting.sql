-- How many messages wait for a function.
SELECT COUNT(*) FROM semel_queue WHERE function = ?1 AND state = 'available'
