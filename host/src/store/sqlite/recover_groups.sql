-- The groups of the claims that recovery is about to take.
SELECT DISTINCT function, group_key FROM semel_queue
WHERE state = 'running' AND (epoch <> $1 OR lease_until <= $2) AND group_key IS NOT NULL
