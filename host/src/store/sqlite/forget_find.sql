-- Messages that ended before ?2 in state ?1 and are kept for no key: a key that ends keeps its message and answer.
SELECT h.seq FROM semel_history h
WHERE h.state = ?1 AND h.ended_at <= ?2 AND NOT EXISTS (
    SELECT 1 FROM semel_messages m JOIN semel_keys k ON k.message = m.id WHERE m.seq = h.seq AND k.expires_at > ?3
)
ORDER BY h.ended_at LIMIT ?4
