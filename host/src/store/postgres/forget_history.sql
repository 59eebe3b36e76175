-- Of these (an array), what has not been redriven in the meantime, and nobody else forgets.
DELETE FROM semel.history WHERE seq = ANY (ARRAY(
    SELECT seq FROM semel.history WHERE state = $2 AND seq = ANY ($1) FOR UPDATE SKIP LOCKED
))
RETURNING seq
