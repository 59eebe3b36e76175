-- A migration that was announced is not under way any more; nothing to remove if it was recorded. $1 hash of its token.
DELETE FROM semel.migrating WHERE token_hash = $1
