-- Every version of a function, newest first.
SELECT version, digest, manifest, contract, label, created_at, previous FROM versions WHERE `function` = ? ORDER BY version DESC
