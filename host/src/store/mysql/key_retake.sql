-- Takes keys that key_find.sql found to stand for nothing any more, under the locks of key_remember.sql and with its list.
UPDATE JSON_TABLE(?, '$[*]' COLUMNS (
    f VARCHAR(190) PATH '$.f', k VARBINARY(512) PATH '$.k', fingerprint VARCHAR(128) PATH '$.fingerprint',
    message VARCHAR(64) PATH '$.message', span BIGINT PATH '$.span', while_active BIGINT PATH '$.while_active'
)) AS t
STRAIGHT_JOIN `keys` k FORCE INDEX (PRIMARY) ON k.`function` = t.f AND k.`key` = t.k
SET k.fingerprint = UNHEX(t.fingerprint), k.message = t.message, k.expires_at = TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6)) + t.span,
    k.while_active = t.while_active, k.ended_as = NULL
