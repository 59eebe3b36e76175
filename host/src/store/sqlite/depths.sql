-- What waits or runs, and what needs a decision; of what waits, when the first was due. The queue is read from its
-- index alone; of the history only dead and in-doubt messages are counted, of deployed functions: nobody can redrive the rest.
SELECT function, state, COUNT(*) AS messages,
       MIN(CASE WHEN state = 'available' AND available_at <= ?1 THEN available_at END) AS oldest_due
FROM semel_queue GROUP BY function, state
UNION ALL
SELECT f.name, s.state, (SELECT COUNT(*) FROM semel_history h WHERE h.function = f.name AND h.state = s.state), NULL
FROM semel_functions f, (SELECT 'dead' AS state UNION ALL SELECT 'in-doubt') s
WHERE f.removed = 0
