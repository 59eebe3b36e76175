-- A message as it was accepted.
SELECT id, event, `function`, topic, CONVERT(group_key USING utf8mb4) AS group_key, content_type, headers, body, accepted_at
FROM messages WHERE id = ?
