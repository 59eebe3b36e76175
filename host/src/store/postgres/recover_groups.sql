-- Locks the groups of lost claims ($1 functions, $2 group keys) as far as nobody has them, and returns their buckets: one
-- session that hangs while it acknowledges must not keep everything else from being recovered.
SELECT bucket FROM semel.groups
WHERE bucket = ANY (ARRAY(SELECT semel.bucket(f, g) FROM unnest($1::text[], $2::text[]) AS t (f, g) WHERE g IS NOT NULL))
ORDER BY bucket FOR UPDATE SKIP LOCKED
