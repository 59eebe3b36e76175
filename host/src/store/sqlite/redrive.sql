-- Back into the queue with its fence, so that every claim of before stays behind; its attempts count anew. Whether it is
-- its turn in its group is decided after it.
INSERT INTO semel_queue
    (seq, function, group_key, state, priority, available_at, due, blocked, attempt, attempts_before, fence, version,
     error_kind, error_message)
SELECT h.seq, h.function, m.group_key, 'available', m.priority, ?2, 0, f.serial AND m.group_key IS NOT NULL, h.attempt, h.attempt,
       h.fence, h.version, h.error_kind, h.error_message
FROM semel_history h
JOIN semel_messages m ON m.seq = h.seq
JOIN semel_functions f ON f.name = h.function
WHERE h.seq = ?1
