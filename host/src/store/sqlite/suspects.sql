-- Whether any suspect of these functions (a JSON array) is waiting.
SELECT EXISTS (
    SELECT 1 FROM semel_queue WHERE suspect = 1 AND state = 'available' AND function IN (SELECT value FROM json_each($1))
)
