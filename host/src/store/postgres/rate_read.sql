-- Locks functions with a limit over all hosts, and reads the rate's place in time. Those that somebody claims from at this
-- moment are left out, and so are left alone: SKIP LOCKED on messages alone would go beyond the limit.
SELECT name, rate_at, semel.now() FROM semel.functions WHERE name = ANY ($1) ORDER BY name FOR NO KEY UPDATE SKIP LOCKED
