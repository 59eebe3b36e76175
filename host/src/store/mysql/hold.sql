-- The message of a claim that still holds, under lock: reading first and removing later would let two end it at once.
SELECT seq FROM queue WHERE seq = ? AND fence = ? AND token_hash = ? AND state = 'running' FOR UPDATE
