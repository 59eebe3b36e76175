-- What a session of an app's login is: its process, and whether it may take locks that outlive a transaction.
SELECT pg_catalog.pg_backend_pid(), pg_catalog.has_function_privilege('pg_catalog.pg_advisory_unlock_all()', 'EXECUTE')
