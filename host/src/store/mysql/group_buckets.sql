-- The bucket of each of these groups (a list), in its order.
SELECT CAST(CRC32(CONCAT(t.f, '/', t.g)) MOD 1000 AS SIGNED)
FROM JSON_TABLE(?, '$[*]' COLUMNS (
    place FOR ORDINALITY, f VARBINARY(190) PATH '$.f', g VARBINARY(512) PATH '$.g'
)) AS t
ORDER BY t.place
