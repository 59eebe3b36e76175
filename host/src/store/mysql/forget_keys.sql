-- The keys of forget_keys_find.sql (a list of functions and keys).
DELETE k FROM JSON_TABLE(?, '$[*]' COLUMNS (f VARCHAR(190) PATH '$.f', k VARBINARY(512) PATH '$.k')) AS t
STRAIGHT_JOIN `keys` k FORCE INDEX (PRIMARY) ON k.`function` = t.f AND k.`key` = t.k
