-- New ones begin now; what a version before had too goes on.
INSERT INTO semel.cron (function, key, reached) SELECT $1, key, semel.now() FROM unnest($2) AS new (key) ON CONFLICT DO NOTHING
