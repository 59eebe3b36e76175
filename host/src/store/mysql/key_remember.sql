-- Takes those of the keys that are not known: ? the taker, then a list of functions (f), keys (k), fingerprints, messages, windows
-- (span, microseconds; none: no end) and whether they stand while active; no key twice. It comes first: two at once wait for
-- each other here, so that they make one message, and in the order of the keys, so that they never wait in a circle. Those that
-- are known are locked as well, as rows that are changed are: nobody forgets them or takes them over before this transaction
-- ends.
INSERT INTO `keys` (`function`, `key`, fingerprint, message, expires_at, while_active, taker)
SELECT t.f, t.k, UNHEX(t.fingerprint), t.message, TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6)) + t.span, t.while_active, ?
FROM JSON_TABLE(?, '$[*]' COLUMNS (
    f VARCHAR(190) PATH '$.f', k VARBINARY(512) PATH '$.k', fingerprint VARCHAR(128) PATH '$.fingerprint',
    message VARCHAR(64) PATH '$.message', span BIGINT PATH '$.span', while_active BIGINT PATH '$.while_active'
)) AS t
ORDER BY t.f, t.k
ON DUPLICATE KEY UPDATE `function` = `keys`.`function`
