-- Messages and their places in the queue, one per element: ids, events, functions, topics, groups, content types, headers,
-- bodies, priorities, delays (microseconds). The same function as for published ones; group_order.sql comes after it.
SELECT semel.enqueue($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
