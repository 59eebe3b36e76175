-- What a claimed message says.
SELECT id, function, topic, group_key, content_type, headers, body, accepted_at, event FROM semel_messages
WHERE seq = ?1
