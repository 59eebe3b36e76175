-- Every version of a function, newest first.
SELECT version, digest, manifest, contract, label, created_at, previous FROM semel_versions
WHERE function = ?1 ORDER BY version DESC
