-- The last statement before COMMIT: takes the message out of the queue if, and only if, this very claim still holds.
DELETE FROM semel_queue WHERE seq = $1 AND fence = $2 AND token_hash = $3 AND state = 'running'
