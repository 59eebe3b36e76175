-- Renews the leases of claims that still hold, one per element: $1 seqs, $2 fences, $3 hashes of tokens, $4 leases. Returns
-- those that do not. A row that somebody has locked (it is being acknowledged) is left for the next time: one session that
-- hangs must not keep the others' leases from being renewed.
WITH held AS MATERIALIZED (
    SELECT q.seq, c.lease
    FROM unnest($1::bigint[], $2::bigint[], $3::bytea[], $4::bigint[]) AS c (seq, fence, token_hash, lease)
    JOIN semel.queue q ON q.seq = c.seq AND q.fence = c.fence AND q.token_hash = c.token_hash AND q.state = 'running'
    FOR NO KEY UPDATE OF q SKIP LOCKED
),
renewed AS (
    UPDATE semel.queue q SET lease_until = semel.now() + h.lease FROM held h WHERE q.seq = h.seq
)
SELECT c.seq, c.fence FROM unnest($1::bigint[], $2::bigint[], $3::bytea[]) AS c (seq, fence, token_hash)
WHERE NOT EXISTS (
    SELECT FROM semel.queue q
    WHERE q.seq = c.seq AND q.fence = c.fence AND q.token_hash = c.token_hash AND q.state = 'running'
)
