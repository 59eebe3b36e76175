-- Of these messages (a list of their ids), those with calls that may have happened.
SELECT DISTINCT c.message
FROM JSON_TABLE(?, '$[*]' COLUMNS (id VARCHAR(64) PATH '$')) AS t STRAIGHT_JOIN calls c FORCE INDEX (calls_message) ON c.message = t.id
WHERE c.state <> 'failed'
