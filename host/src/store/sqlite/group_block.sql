-- Whoever stands at the head of a group and is not its first message has to wait again (the first one came back).
UPDATE semel_queue SET blocked = 1, due = 0
WHERE function = $1 AND group_key = $2 AND blocked = 0 AND state = 'available'
  AND seq > (SELECT MIN(seq) FROM semel_queue WHERE function = $1 AND group_key = $2 AND seq IS NOT $3)
  AND EXISTS (SELECT 1 FROM semel_functions WHERE name = $1 AND serial = 1)
