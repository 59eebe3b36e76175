-- Waiting messages of removed functions.
SELECT q.seq FROM semel_functions f JOIN semel_queue q ON q.function = f.name AND q.state = 'available'
WHERE f.removed = 1 LIMIT $1
