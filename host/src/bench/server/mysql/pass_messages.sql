-- Messages that have passed: so many of the function, of this topic, then. Their ids are no order.
INSERT INTO messages (id, event, `function`, topic, headers, body, priority, accepted_at, due_at)
WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < ?)
SELECT REPLACE(UUID(), '-', ''), REPLACE(UUID(), '-', ''), `at`.`function`, `at`.topic, '[]',
       CONCAT('counter-', n % 1000), 0, `at`.now, `at`.now
FROM numbers, (SELECT ? AS `function`, ? AS topic, ? AS now) AS `at`
