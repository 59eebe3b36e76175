-- The next version of a function, whose app's login runs it ($6), and where a rollback from it leads.
INSERT INTO semel.versions (function, version, digest, manifest, contract, label, created_at, app, previous)
SELECT $1, COALESCE(MAX(version), 0) + 1, $2, $3, $4, $5, semel.now(), $6,
       (SELECT active FROM semel.functions WHERE name = $1 AND NOT removed)
FROM semel.versions WHERE function = $1
RETURNING version
