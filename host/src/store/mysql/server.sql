-- What the server and this database are, for `semel doctor`. Settings as texts; what a server has not is NULL.
SELECT (SELECT `schema` FROM store) AS `schema`,
    CAST(@@innodb_flush_log_at_trx_commit AS CHAR) AS flush_log,
    CAST(@@log_bin AS SIGNED) AS log_bin,
    CAST(@@sync_binlog AS SIGNED) AS sync_binlog,
    CAST(@@innodb_doublewrite AS CHAR) AS doublewrite,
    CAST(@@innodb_rollback_on_timeout AS CHAR) AS rollback_on_timeout,
    CAST(@@max_connections AS SIGNED) AS connections,
    CAST(@@max_allowed_packet AS SIGNED) AS packet,
    (SELECT COUNT(*) FROM information_schema.processlist) AS sessions,
    (SELECT CAST(COALESCE(SUM(data_length + index_length), 0) AS SIGNED) FROM information_schema.tables
     WHERE table_schema = DATABASE()) AS size,
    TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6)) AS now
