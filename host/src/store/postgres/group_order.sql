-- Puts groups in order after their rows were changed, under their locks. $1 functions, $2 group keys (NULL: none).
SELECT semel.order_groups($1, $2)
