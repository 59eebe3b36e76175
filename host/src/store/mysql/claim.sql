-- Claims messages of one function that claim_find.sql has locked: attempt and fence count up here, before anything runs, so that
-- a message which kills its host is counted too.
UPDATE JSON_TABLE(?, '$[*]' COLUMNS (seq BIGINT PATH '$')) AS t STRAIGHT_JOIN queue q FORCE INDEX (PRIMARY) ON q.seq = t.seq
SET state = 'running', q.attempt = q.attempt + 1, q.fence = q.fence + 1, q.suspect = 0, q.begun_at = NULL,
    q.token_hash = ?, q.host = ?, q.version = ?, q.contract = ?, q.max_attempts = ?, q.claimed_at = TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6)),
    q.lease_until = TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6)) + ?
