-- Locks groups until the end of the transaction: $1 functions, $2 group keys (NULL: none). Before any row is touched.
SELECT semel.lock_groups($1, $2)
