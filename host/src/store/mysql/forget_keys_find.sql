-- Keys whose window is over, at most ?, under lock, past those that somebody else forgets or takes over.
SELECT `function`, CONVERT(`key` USING utf8mb4) AS `key` FROM `keys` FORCE INDEX (keys_expiry)
WHERE expires_at <= TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6)) ORDER BY expires_at LIMIT ? FOR UPDATE SKIP LOCKED
