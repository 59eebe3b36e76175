-- Messages that have passed: accepted long before, and so with ids that are no order.
WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < ?2)
INSERT INTO semel_messages (id, event, function, topic, headers, body, priority, accepted_at, due_at)
SELECT lower(hex(randomblob(16))), lower(hex(randomblob(16))), ?1, 'fn/' || ?1, '[]',
       CAST('counter-' || n % 1000 AS BLOB), 0, ?3, ?3
FROM numbers
