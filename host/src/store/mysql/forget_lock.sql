-- Of these (a list), what has not been redriven in the meantime, and nobody else forgets.
SELECT h.seq FROM JSON_TABLE(?, '$[*]' COLUMNS (seq BIGINT PATH '$')) AS t STRAIGHT_JOIN history h FORCE INDEX (PRIMARY) ON h.seq = t.seq WHERE h.state = ? FOR UPDATE SKIP LOCKED
