-- Claims due messages of several functions, bodies included: attempt and fence count up here, before anything runs, so that
-- a message which kills its host is counted too. Past rows that other hosts are claiming. $1 hash of this call's token,
-- $2 host, $3 suspects, $4 most in all; then one element per lane: $5 functions, $6 versions, $7 contracts, $8 most attempts,
-- $9 leases, $10 most of it, $11 most running on all hosts (NULL: no limit; else under the lock of rate_read.sql).
-- Only the version that is active: a host that has not heard of a deploy yet starts nothing of before.
WITH clock AS MATERIALIZED (SELECT semel.now() AS now),
picked AS MATERIALIZED (
    SELECT q.seq, lane.version, lane.contract, lane.max_attempts, lane.lease
    FROM unnest($5::text[], $6::bigint[], $7::text[], $8::bigint[], $9::bigint[], $10::bigint[], $11::bigint[])
         AS lane (function, version, contract, max_attempts, lease, room, running)
    CROSS JOIN LATERAL (
        SELECT w.seq FROM semel.queue w
        WHERE w.function = lane.function AND w.state = 'available' AND w.suspect = $3 AND w.due
        ORDER BY w.priority DESC, w.available_at, w.seq
        LIMIT greatest(0, least(lane.room, lane.running - CASE WHEN lane.running IS NOT NULL THEN (
            SELECT count(*) FROM semel.queue r WHERE r.function = lane.function AND r.state = 'running'
        ) END))
        FOR NO KEY UPDATE SKIP LOCKED
    ) AS q
    WHERE EXISTS (
        SELECT FROM semel.functions f
        WHERE f.name = lane.function AND f.active = lane.version AND NOT f.paused AND NOT f.removed
    )
    LIMIT $4
)
UPDATE semel.queue q
SET state = 'running', attempt = q.attempt + 1, fence = q.fence + 1, suspect = false, begun_at = NULL,
    token_hash = $1, host = $2, version = p.version, contract = p.contract, max_attempts = p.max_attempts,
    claimed_at = c.now, lease_until = c.now + p.lease
FROM picked p, clock c, semel.messages m
WHERE q.seq = p.seq AND m.seq = p.seq
RETURNING q.seq, q.fence, q.attempt, q.attempts_before, q.claimed_at,
          m.id, m.event, m.function, m.topic, m.group_key, m.content_type, m.headers, m.body, m.accepted_at
