-- The next version of a function, and where a rollback from it leads.
INSERT INTO semel_versions (function, version, digest, manifest, contract, label, created_at, previous)
SELECT ?1, COALESCE(MAX(version), 0) + 1, ?2, ?3, ?4, ?5, ?6,
       (SELECT active FROM semel_functions WHERE name = ?1 AND removed = 0)
FROM semel_versions WHERE function = ?1
RETURNING version
