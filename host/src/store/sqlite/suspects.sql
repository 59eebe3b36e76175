-- Whether any suspect of these functions (a JSON array) is waiting for its turn.
SELECT EXISTS (
    SELECT 1 FROM semel_queue
    WHERE suspect = 1 AND state = 'available' AND blocked = 0 AND function IN (SELECT value FROM json_each(?1))
)
