-- Groups in order from now on: all but the first of each group wait. Under the locks of all groups: whoever enqueues or ends
-- something at this moment finds the new order after it. One that is being claimed is skipped, and holds its group back.
UPDATE semel.queue SET blocked = true, due = false
WHERE seq = ANY (ARRAY(
    SELECT q.seq FROM semel.queue q
    WHERE q.function = $1 AND q.group_key IS NOT NULL AND NOT q.blocked AND q.state = 'available' AND EXISTS (
        SELECT 1 FROM semel.queue e
        WHERE e.function = q.function AND e.group_key = q.group_key AND (e.seq < q.seq OR e.state = 'running')
    )
    FOR NO KEY UPDATE SKIP LOCKED
))
