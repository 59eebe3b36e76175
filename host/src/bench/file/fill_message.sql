-- A message of the bench, as if it had been accepted.
INSERT INTO semel_messages (id, event, function, topic, headers, body, priority, accepted_at, due_at)
VALUES (?1, ?2, ?3, 'fn/' || ?3, '[]', ?4, 0, ?5, ?5)
RETURNING seq
