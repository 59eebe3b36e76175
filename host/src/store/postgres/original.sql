-- A message as it was accepted.
SELECT id, event, function, topic, group_key, content_type, headers, body, accepted_at FROM semel.messages WHERE id = $1
