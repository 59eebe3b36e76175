-- Recovery: claims whose lease had ended at $1, with their groups, at most $2. No epochs here: a host's death is known by
-- its leases, and every function has a row for ever, so this finds all. OFFSET 0 keeps the order out of the inner query:
-- else it may walk over the whole queue by seq.
SELECT q.seq, q.function, q.group_key FROM semel.functions f CROSS JOIN LATERAL (
    SELECT r.seq, r.function, r.group_key FROM semel.queue r
    WHERE r.function = f.name AND r.state = 'running' AND r.lease_until <= $1 OFFSET 0
) AS q
ORDER BY q.seq LIMIT $2
