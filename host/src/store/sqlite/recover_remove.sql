-- Recovery, 3 of 4: what ended leaves the queue.
DELETE FROM semel_queue
WHERE state = 'running' AND (epoch <> ?1 OR lease_until <= ?2)
  AND (begun_at IS NOT NULL OR attempt - attempts_before >= max_attempts)
