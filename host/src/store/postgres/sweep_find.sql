-- Waiting messages of removed functions, with their groups; removed functions stay for ever, mostly with none. A range instead of
-- equality, in the order of its index: else the statistics lead to a walk over all that waits, until $1 are found.
SELECT q.seq, q.function, q.group_key FROM semel.functions f CROSS JOIN LATERAL (
    SELECT w.seq, w.function, w.group_key FROM semel.queue w
    WHERE (w.function, w.state) >= (f.name, 'available') AND (w.function, w.state) <= (f.name, 'available')
    ORDER BY w.function, w.state LIMIT $1
) AS q
WHERE f.removed ORDER BY f.name LIMIT $1
