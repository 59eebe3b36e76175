-- A removed function goes when its last message has.
DELETE FROM semel_functions WHERE removed = 1 AND NOT EXISTS (SELECT 1 FROM semel_queue q WHERE q.function = name)
