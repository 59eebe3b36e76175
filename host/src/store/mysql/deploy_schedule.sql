-- New ones (a list) begin now; what a version before had too goes on.
INSERT INTO cron (`key`, `function`, reached)
SELECT t.k, ?, TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6)) FROM JSON_TABLE(?, '$[*]' COLUMNS (k VARBINARY(512) PATH '$')) AS t
ON DUPLICATE KEY UPDATE reached = cron.reached
