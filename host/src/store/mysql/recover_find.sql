-- Recovery: claims whose lease had ended at ?, with their groups, at most ?. No epochs here: a host's death is known by its
-- leases, and every function has a row for ever, so this finds all.
SELECT r.seq, r.`function`, CONVERT(r.group_key USING utf8mb4) AS group_key
FROM functions f STRAIGHT_JOIN queue r FORCE INDEX (queue_claim) ON r.`function` = f.name AND r.state = 'running'
WHERE r.lease_until <= ? ORDER BY r.seq LIMIT ?
