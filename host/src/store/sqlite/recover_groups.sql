-- The groups of the claims that recovery is about to take. By the index of what runs: what waits may be long.
SELECT DISTINCT function, group_key FROM semel_queue INDEXED BY semel_queue_running
WHERE state = 'running' AND (epoch <> ?1 OR lease_until <= ?2) AND group_key IS NOT NULL
