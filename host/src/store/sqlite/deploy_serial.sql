-- Groups in order from now on: all but the first of each group wait.
UPDATE semel_queue AS q SET blocked = 1, due = 0
WHERE function = ?1 AND group_key IS NOT NULL AND blocked = 0 AND state = 'available' AND EXISTS (
    SELECT 1 FROM semel_queue e
    WHERE e.function = q.function AND e.group_key = q.group_key AND (e.seq < q.seq OR e.state = 'running')
)
