-- How many messages of each function stand where, the claims so far, and the commits that the fence refused. SUM of a bigint
-- would be a decimal.
SELECT `function`, state, COUNT(*) AS messages, CAST(SUM(attempt) AS SIGNED) AS attempts FROM queue GROUP BY `function`, state
UNION ALL
SELECT `function`, state, COUNT(*), CAST(SUM(attempt) AS SIGNED) FROM history GROUP BY `function`, state
UNION ALL
SELECT `function`, 'lost-lease', COUNT(*), 0 FROM attempts WHERE outcome = 'lost-lease' GROUP BY `function`
UNION ALL
SELECT name, 'available', 0, 0 FROM functions WHERE removed = 0 AND app <> 'semel'
