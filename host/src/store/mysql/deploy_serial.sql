-- They wait (the seqs of deploy_serial_find.sql).
UPDATE JSON_TABLE(?, '$[*]' COLUMNS (seq BIGINT PATH '$')) AS t STRAIGHT_JOIN queue q FORCE INDEX (PRIMARY) ON q.seq = t.seq SET q.blocked = 1, q.due = 0
