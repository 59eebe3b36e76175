-- The hot half: due at `available_at`, or at once (?6); blocked while another message of its group is in the queue, if
-- the function asks for groups in order.
INSERT INTO semel_queue (seq, function, group_key, state, priority, available_at, blocked, due)
SELECT ?1, ?2, ?3, 'available', ?4, ?5, place.blocked, ?6 AND NOT place.blocked
FROM (
    SELECT CASE WHEN ?3 IS NULL THEN 0 ELSE
        EXISTS (SELECT 1 FROM semel_functions WHERE name = ?2 AND serial = 1)
        AND EXISTS (SELECT 1 FROM semel_queue WHERE function = ?2 AND group_key = ?3)
    END AS blocked
) AS place
