-- Whoever stands at the head of a group has to wait again if it is not the first message (that one came back), or if
-- another one runs. Nothing for a function that asks for no order.
UPDATE semel_queue SET blocked = 1, due = 0
WHERE function = (SELECT name FROM semel_functions WHERE name = ?1 AND serial = 1)
  AND group_key = ?2 AND blocked = 0 AND state = 'available'
  AND (
      seq > (SELECT MIN(seq) FROM semel_queue WHERE function = ?1 AND group_key = ?2 AND seq IS NOT ?3)
      OR EXISTS (
          SELECT 1 FROM semel_queue
          WHERE function = ?1 AND group_key = ?2 AND blocked = 0 AND state = 'running' AND seq IS NOT ?3
      )
  )
