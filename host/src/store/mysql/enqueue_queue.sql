-- The places in the queue of messages (a list of ids) that were accepted in this transaction. One with a group of a serial
-- function is blocked until group_order.sql says otherwise.
INSERT INTO queue (seq, `function`, group_key, state, urgency, available_at, blocked, due)
SELECT m.seq, m.`function`, m.group_key, 'available', -m.priority, m.due_at,
       m.group_key IS NOT NULL AND f.serial IS NOT NULL,
       m.due_at <= TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6)) AND (m.group_key IS NULL OR f.serial IS NULL)
FROM JSON_TABLE(?, '$[*]' COLUMNS (id VARCHAR(64) PATH '$')) AS t
STRAIGHT_JOIN messages m FORCE INDEX (id) ON m.id = t.id
LEFT JOIN functions f ON f.name = m.`function` AND f.serial = 1
