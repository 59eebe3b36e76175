-- After the first migrations: the number of the last one, the installation's secret.
INSERT IGNORE INTO store (id, `schema`, secret, created_at) VALUES (1, ?, ?, TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6)))
