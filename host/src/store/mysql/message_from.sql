-- Messages with where they stand, and by which rules; the condition follows.
SELECT m.seq, m.id, m.event, m.topic, m.`function`, CONVERT(m.group_key USING utf8mb4) AS group_key, m.priority, m.headers, m.accepted_at,
       COALESCE(q.state, h.state) AS state,
       COALESCE(q.attempt, h.attempt) AS attempt,
       COALESCE(q.attempts_before, h.attempts_before) AS attempts_before,
       COALESCE(q.version, h.version) AS version,
       COALESCE(q.available_at, h.available_at) AS available_at,
       q.lease_until, h.ended_at,
       COALESCE(q.error_kind, h.error_kind) AS error_kind,
       COALESCE(q.error_message, h.error_message) AS error_message,
       v.contract, v.label,
       h.answered, h.answer_content_type, h.answer_headers, h.answer_body
FROM messages m
LEFT JOIN queue q ON q.seq = m.seq
LEFT JOIN history h ON h.seq = m.seq
LEFT JOIN functions f ON f.name = m.`function`
LEFT JOIN versions v ON v.function = m.`function` AND v.version = COALESCE(q.version, h.version, f.active)
