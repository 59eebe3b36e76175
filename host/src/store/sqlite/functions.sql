-- The active version of every function.
SELECT f.name, v.version, v.digest, v.manifest, v.contract, v.label, v.created_at
FROM semel_functions f JOIN semel_versions v ON v.function = f.name AND v.version = f.active
ORDER BY f.name
