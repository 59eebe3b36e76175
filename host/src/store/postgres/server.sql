-- What the server and this database are, for `semel doctor`. Settings as texts.
SELECT current_setting('server_version') AS version,
    (SELECT schema FROM semel.store) AS schema,
    current_setting('fsync') AS fsync,
    current_setting('full_page_writes') AS full_page_writes,
    current_setting('synchronous_commit') AS synchronous_commit,
    current_setting('max_prepared_transactions')::bigint AS prepared,
    current_setting('max_connections')::bigint - current_setting('superuser_reserved_connections')::bigint AS connections,
    (SELECT count(*) FROM pg_catalog.pg_stat_activity WHERE backend_type = 'client backend') AS sessions,
    pg_size_pretty(pg_database_size(current_database())) AS size,
    semel.now() AS now
