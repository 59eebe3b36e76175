-- Announces a migration of an app, in a commit of its own: $1 app, $2 hash of a fresh token, $3 name, $4 function,
-- $5 checksum. Nothing if another one of this app is under way; one that began two minutes ago is not any more.
INSERT INTO semel.migrating (app, token_hash, name, function, checksum, since) VALUES ($1, $2, $3, $4, $5, semel.now())
ON CONFLICT (app) DO UPDATE SET token_hash = excluded.token_hash, name = excluded.name, function = excluded.function,
    checksum = excluded.checksum, since = excluded.since
WHERE migrating.since < excluded.since - 120000000
