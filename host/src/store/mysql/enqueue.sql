-- Messages: id, event, function, topic, group, content type, headers, body, priority, delay (microseconds). The last line is said
-- again for each further message; enqueue_queue.sql comes after it.
INSERT INTO messages
    (id, event, `function`, topic, group_key, content_type, headers, body, priority, accepted_at, due_at)
VALUES
    (?, ?, ?, ?, ?, ?, ?, ?, ?, TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6)), TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6)) + ?)
