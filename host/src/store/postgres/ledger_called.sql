-- Of these messages ($1, an array of their ids), those with calls that may have happened.
SELECT DISTINCT message FROM semel.calls WHERE message = ANY ($1) AND state <> 'failed'
