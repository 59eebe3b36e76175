-- No order of groups any more; under the locks of all groups. Whoever enqueues at this moment sees to its own group.
UPDATE semel.queue SET blocked = false WHERE function = $1 AND state = 'available' AND blocked
