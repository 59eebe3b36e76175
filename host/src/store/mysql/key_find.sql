-- What keys (a list of functions and keys) stand for, whether they still do, and whether ? took them just now; a statement of its
-- own after key_remember.sql, under its locks. Not active: key_retake.sql.
SELECT k.`function`, CONVERT(k.`key` USING utf8mb4) AS `key`, k.fingerprint, k.message, k.ended_as, k.taker <=> ? AS taken,
       (k.expires_at IS NULL OR k.expires_at > TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6)))
       AND (k.while_active = 0 OR EXISTS (
           SELECT 1 FROM messages m
           LEFT JOIN queue q ON q.seq = m.seq
           LEFT JOIN history h ON h.seq = m.seq
           WHERE m.id = k.message AND (q.seq IS NOT NULL OR h.state = 'in-doubt')
       )) AS active
FROM JSON_TABLE(?, '$[*]' COLUMNS (f VARCHAR(190) PATH '$.f', k VARBINARY(512) PATH '$.k')) AS t
STRAIGHT_JOIN `keys` k FORCE INDEX (PRIMARY) ON k.`function` = t.f AND k.`key` = t.k
