-- The last statement before COMMIT: takes messages out of the queue (?1: a JSON array of [seq, fence], all claimed with
-- one token), each if, and only if, this very claim still holds.
DELETE FROM semel_queue
WHERE (seq, fence) IN (SELECT value ->> 0, value ->> 1 FROM json_each(?1)) AND token_hash = ?2 AND state = 'running'
