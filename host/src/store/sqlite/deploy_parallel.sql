-- No order of groups any more.
UPDATE semel_queue SET blocked = 0 WHERE function = $1 AND blocked = 1
