-- Waiting messages of removed functions.
SELECT seq FROM semel_queue
WHERE state = 'available' AND function IN (SELECT name FROM semel_functions WHERE removed = 1) LIMIT ?1
