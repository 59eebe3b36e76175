-- The calls of messages (a list of seqs) that are forgotten, before their ids are.
DELETE c FROM JSON_TABLE(?, '$[*]' COLUMNS (seq BIGINT PATH '$')) AS t STRAIGHT_JOIN messages m FORCE INDEX (PRIMARY) ON m.seq = t.seq STRAIGHT_JOIN calls c FORCE INDEX (calls_message) ON c.message = m.id
