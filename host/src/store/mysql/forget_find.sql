-- Messages that ended ? microseconds ago or more in a state and are kept for no key: a key that ends keeps its message and
-- answer. At most ?.
SELECT h.seq FROM history h FORCE INDEX (history_ended)
WHERE h.state = ? AND h.ended_at <= TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6)) - ? AND NOT EXISTS (
    SELECT 1 FROM messages m JOIN `keys` k ON k.message = m.id WHERE m.seq = h.seq AND k.expires_at > TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6))
)
ORDER BY h.ended_at LIMIT ?
