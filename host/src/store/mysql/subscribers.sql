-- Whom events of topics (a list) fan out to.
SELECT CONVERT(s.topic USING utf8mb4) AS topic, s.`function`
FROM JSON_TABLE(?, '$[*]' COLUMNS (topic VARBINARY(1024) PATH '$')) AS t STRAIGHT_JOIN subscriptions s FORCE INDEX (PRIMARY) ON s.topic = t.topic
ORDER BY s.topic, s.`function`
