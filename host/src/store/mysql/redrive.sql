-- Messages (a list) back into the queue with their fences, so that every claim of before stays behind; their attempts count
-- anew. Blocked until group_order.sql, if groups of the function are in order. All at one time, so that they stay in the order
-- of acceptance. Out of the history next (leave_history.sql).
INSERT INTO queue
    (seq, `function`, group_key, state, urgency, available_at, due, blocked, attempt, attempts_before, fence, version,
     error_kind, error_message)
SELECT h.seq, h.`function`, m.group_key, 'available', -m.priority, TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6)),
       m.group_key IS NULL OR f.serial = 0, m.group_key IS NOT NULL AND f.serial = 1, h.attempt, h.attempt, h.fence, h.version,
       h.error_kind, h.error_message
FROM JSON_TABLE(?, '$[*]' COLUMNS (seq BIGINT PATH '$')) AS t STRAIGHT_JOIN history h FORCE INDEX (PRIMARY) ON h.seq = t.seq STRAIGHT_JOIN messages m FORCE INDEX (PRIMARY) ON m.seq = t.seq
STRAIGHT_JOIN functions f FORCE INDEX (PRIMARY) ON f.name = h.`function`
