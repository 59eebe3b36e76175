-- Of these ($2), what is still lost, under lock, where the group's bucket ($3) is locked or there is no group: not what
-- somebody else recovers or acknowledges at this moment.
SELECT seq, function, group_key FROM semel.queue
WHERE seq = ANY ($2) AND state = 'running' AND lease_until <= $1
  AND (group_key IS NULL OR semel.bucket(function, group_key) = ANY ($3))
ORDER BY seq FOR UPDATE SKIP LOCKED
