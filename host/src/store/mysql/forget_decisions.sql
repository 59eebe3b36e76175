DELETE d FROM JSON_TABLE(?, '$[*]' COLUMNS (seq BIGINT PATH '$')) AS t STRAIGHT_JOIN decisions d FORCE INDEX (decisions_seq) ON d.seq = t.seq
