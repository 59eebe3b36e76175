-- After a commit: all that DISCARD ALL throws away, but for plans.
CLOSE ALL; SET SESSION AUTHORIZATION DEFAULT; RESET ALL; UNLISTEN *; DISCARD SEQUENCES; DISCARD TEMP;
SELECT pg_catalog.pg_advisory_unlock_all()
