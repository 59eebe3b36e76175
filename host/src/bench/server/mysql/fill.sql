-- Messages of the bench, as if they had been accepted: a JSON list of [id, body], the function, its topic.
INSERT INTO messages (id, event, `function`, topic, headers, body, priority, accepted_at, due_at)
SELECT one.id, one.id, `at`.`function`, `at`.topic, '[]', one.body, 0, `at`.now, `at`.now
FROM JSON_TABLE(?, '$[*]' COLUMNS (
         place FOR ORDINALITY, id VARCHAR(64) PATH '$[0]', body VARCHAR(200) PATH '$[1]'
     )) AS one,
     (SELECT ? AS `function`, ? AS topic, ? AS now) AS `at`
ORDER BY one.place
