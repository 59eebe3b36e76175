-- A rehearsal that was announced is entered, or never will be. $1 hash of its token.
DELETE FROM semel.rehearsals WHERE token_hash = $1
