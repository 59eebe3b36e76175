-- The immutable half of a message.
INSERT INTO semel_messages
    (id, event, function, topic, group_key, content_type, headers, body, priority, accepted_at, due_at)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)
RETURNING seq
