-- Messages whose time has come, or whose turn in their group. With `due` in the claim's index, a claim never walks over
-- those that wait.
UPDATE semel_queue SET due = 1 WHERE due = 0 AND blocked = 0 AND available_at <= ?1
