-- How many messages of each function stand where, the claims so far, and the commits that the fence refused.
SELECT function, state, COUNT(*) AS messages, SUM(attempt) AS attempts FROM semel_queue GROUP BY function, state
UNION ALL
SELECT function, state, COUNT(*), SUM(attempt) FROM semel_history GROUP BY function, state
UNION ALL
SELECT function, 'lost-lease', COUNT(*), 0 FROM semel_attempts WHERE outcome = 'lost-lease' GROUP BY function
UNION ALL
SELECT name, 'available', 0, 0 FROM semel_functions WHERE removed = 0 AND app <> 'semel'
