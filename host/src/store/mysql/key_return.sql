-- Gives keys back that were taken in this transaction for messages that a full backlog does not let in.
DELETE k FROM JSON_TABLE(?, '$[*]' COLUMNS (f VARCHAR(190) PATH '$.f', k VARBINARY(512) PATH '$.k')) AS t
STRAIGHT_JOIN `keys` k FORCE INDEX (PRIMARY) ON k.`function` = t.f AND k.`key` = t.k
