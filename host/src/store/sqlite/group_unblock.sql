-- The first message of a group is next, once none of the group runs. ?3 is about to leave and does not count.
UPDATE semel_queue SET blocked = 0
WHERE seq = (SELECT MIN(seq) FROM semel_queue WHERE function = ?1 AND group_key = ?2 AND seq IS NOT ?3) AND blocked = 1
  AND NOT EXISTS (
      SELECT 1 FROM semel_queue
      WHERE function = ?1 AND group_key = ?2 AND blocked = 0 AND state = 'running' AND seq IS NOT ?3
  )
