-- What waits or runs, and what needs a decision (of deployed functions: nobody can redrive the rest); of what waits, for how
-- long (microseconds) the first has been due.
SELECT `function`, state, COUNT(*) AS messages,
       TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6)) - MIN(CASE WHEN state = 'available' AND available_at <= TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6)) THEN available_at END) AS oldest_due
FROM queue GROUP BY `function`, state
UNION ALL
SELECT f.name, s.state, (SELECT COUNT(*) FROM history h WHERE h.`function` = f.name AND h.state = s.state), NULL
FROM functions f CROSS JOIN (SELECT 'dead' AS state UNION ALL SELECT 'in-doubt') AS s
WHERE f.removed = 0
