-- Of these messages (a JSON array of their ids), those with calls that may have happened.
SELECT DISTINCT message FROM semel_calls
WHERE message IN (SELECT value FROM json_each(?1)) AND state <> 'failed'
