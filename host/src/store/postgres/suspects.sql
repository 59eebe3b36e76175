-- Whether any suspect of these functions (an array) is waiting for its turn.
SELECT EXISTS (
    SELECT 1 FROM semel.queue
    WHERE suspect AND state = 'available' AND NOT blocked AND function = ANY ($1)
)
