-- Keys that stood for these messages (a list of seqs) as long as they were active.
DELETE k FROM JSON_TABLE(?, '$[*]' COLUMNS (seq BIGINT PATH '$')) AS t STRAIGHT_JOIN messages m FORCE INDEX (PRIMARY) ON m.seq = t.seq STRAIGHT_JOIN `keys` k FORCE INDEX (keys_message) ON k.message = m.id
WHERE k.while_active = 1
