-- With `due` in the claim's index, a claim never walks over those that wait. The seqs of promote_find.sql.
UPDATE JSON_TABLE(?, '$[*]' COLUMNS (seq BIGINT PATH '$')) AS t STRAIGHT_JOIN queue q FORCE INDEX (PRIMARY) ON q.seq = t.seq SET q.due = 1
