-- Of the lanes of a claim (? suspects, a list of functions, versions, and whether to count what runs) those from which there is
-- something to claim, and how many messages of each run on all hosts, where that counts (under the lock of rate_read.sql).
-- Only the version that is active: a host that has not heard of a deploy yet starts nothing of before.
SELECT t.place, CASE WHEN t.counts = 1 THEN (
    SELECT COUNT(*) FROM queue r FORCE INDEX (queue_claim) WHERE r.`function` = t.f AND r.state = 'running'
) END AS running
FROM JSON_TABLE(?, '$[*]' COLUMNS (
    place FOR ORDINALITY, f VARCHAR(190) PATH '$.f', version BIGINT PATH '$.version', counts BIGINT PATH '$.counts'
)) AS t
STRAIGHT_JOIN functions f FORCE INDEX (PRIMARY) ON f.name = t.f AND f.active = t.version AND f.paused = 0 AND f.removed = 0
WHERE EXISTS (
    SELECT 1 FROM queue w FORCE INDEX (queue_claim)
    WHERE w.`function` = t.f AND w.state = 'available' AND w.suspect = ? AND w.due = 1
)
ORDER BY t.place
