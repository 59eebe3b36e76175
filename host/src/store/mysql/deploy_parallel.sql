-- No order of groups any more; under the locks of all groups. Whoever enqueues at this moment sees to its own group.
UPDATE queue FORCE INDEX (queue_claim) SET blocked = 0 WHERE `function` = ? AND state = 'available' AND blocked = 1
