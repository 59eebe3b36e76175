-- New ones begin now; what a version before had too goes on.
INSERT INTO semel_cron (function, key, reached) SELECT ?1, value, ?3 FROM json_each(?2) WHERE true ON CONFLICT DO NOTHING
