-- How many messages of each function stand where, the claims so far, and the commits that the fence refused. SUM of a bigint
-- would be a numeric.
SELECT function, state, COUNT(*) AS messages, SUM(attempt)::bigint AS attempts FROM semel.queue GROUP BY function, state
UNION ALL
SELECT function, state, COUNT(*), SUM(attempt)::bigint FROM semel.history GROUP BY function, state
UNION ALL
SELECT function, 'lost-lease', COUNT(*), 0 FROM semel.attempts WHERE outcome = 'lost-lease' GROUP BY function
UNION ALL
SELECT name, 'available', 0, 0 FROM semel.functions WHERE NOT removed AND app <> 'semel'
