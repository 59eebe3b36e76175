-- Messages whose time has come, or whose turn in their group: with `due` in the claim's index, a claim never walks over
-- those that wait. A step at a time, past rows that somebody else promotes. The
-- clock is asked once, in a subquery: a volatile function cannot lead into an index.
UPDATE semel.queue SET due = true
WHERE seq = ANY (ARRAY(
    SELECT seq FROM semel.queue WHERE NOT due AND NOT blocked AND available_at <= (SELECT semel.now())
    ORDER BY available_at LIMIT 1000 FOR NO KEY UPDATE SKIP LOCKED
))
