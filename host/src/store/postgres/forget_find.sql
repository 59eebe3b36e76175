-- Messages that ended $2 microseconds ago or more in state $1 and are kept for no key: a key that ends keeps its message
-- and answer. At most $3.
SELECT h.seq FROM semel.history h
WHERE h.state = $1 AND h.ended_at <= (SELECT semel.now()) - $2 AND NOT EXISTS (
    SELECT 1 FROM semel.messages m JOIN semel.keys k ON k.message = m.id WHERE m.seq = h.seq AND k.expires_at > semel.now()
)
ORDER BY h.ended_at LIMIT $3
