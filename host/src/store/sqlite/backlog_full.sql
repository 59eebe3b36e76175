-- Whether at least ?2 messages of a function are in the queue. The cost grows with the limit, not with the queue.
SELECT EXISTS (SELECT 1 FROM semel_queue WHERE function = ?1 LIMIT 1 OFFSET ?2 - 1)
