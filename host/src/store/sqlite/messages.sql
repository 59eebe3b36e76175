-- Messages with where they stand, and by which rules, newest first. Each of $1 function, $2 state, $3 before may be NULL.
SELECT m.seq, m.id, m.function, m.group_key, m.priority, m.accepted_at,
       COALESCE(q.state, h.state) AS state,
       COALESCE(q.attempt, h.attempt) AS attempt,
       COALESCE(q.version, h.version) AS version,
       COALESCE(q.available_at, h.available_at) AS available_at,
       q.lease_until, h.ended_at,
       COALESCE(q.error_kind, h.error_kind) AS error_kind,
       COALESCE(q.error_message, h.error_message) AS error_message,
       v.contract, v.label,
       h.answered, h.answer_content_type, h.answer_headers, h.answer_body
FROM semel_messages m
LEFT JOIN semel_queue q ON q.seq = m.seq
LEFT JOIN semel_history h ON h.seq = m.seq
LEFT JOIN semel_functions f ON f.name = m.function
LEFT JOIN semel_versions v ON v.function = m.function AND v.version = COALESCE(q.version, h.version, f.active)
WHERE ($1 IS NULL OR m.function = $1)
  AND ($2 IS NULL OR COALESCE(q.state, h.state) = $2) AND ($3 IS NULL OR m.seq < $3)
ORDER BY m.seq DESC LIMIT $4
