-- Locks groups (a list) until the end of the transaction. Before any row is touched.
CALL lock_groups(?)
