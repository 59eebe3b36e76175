-- Delayed messages whose time has come. With `due` in the claim's index, a claim never walks over those that wait.
UPDATE semel_queue SET due = 1 WHERE due = 0 AND available_at <= $1
