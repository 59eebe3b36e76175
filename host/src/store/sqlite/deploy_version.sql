-- The next version of a function.
INSERT INTO semel_versions (function, version, digest, manifest, contract, label, created_at)
SELECT $1, COALESCE(MAX(version), 0) + 1, $2, $3, $4, $5, $6 FROM semel_versions WHERE function = $1
RETURNING version
