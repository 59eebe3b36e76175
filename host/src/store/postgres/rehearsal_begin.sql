-- Announces a rehearsal, in a commit of its own: $1 hash of a fresh token, $2 function, $3 version. One that began a minute
-- ago is not any more: its host died.
WITH over AS (DELETE FROM semel.rehearsals WHERE since < semel.now() - 60000000)
INSERT INTO semel.rehearsals (token_hash, function, version, since) VALUES ($1, $2, $3, semel.now())
