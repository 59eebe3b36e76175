-- Of a function whose groups are in order from now on: all but the first of each group, under lock. Under the locks of all groups
-- too: whoever enqueues or ends something at this moment finds the new order after it. One that is being claimed is skipped,
-- and holds its group back.
SELECT q.seq FROM queue q FORCE INDEX (queue_group)
WHERE q.`function` = ? AND q.group_key IS NOT NULL AND q.blocked = 0 AND q.state = 'available' AND EXISTS (
    SELECT 1 FROM queue e FORCE INDEX (queue_group)
    WHERE e.`function` = q.`function` AND e.group_key = q.group_key AND (e.seq < q.seq OR e.state = 'running')
)
FOR UPDATE SKIP LOCKED
