-- The active version of every function that somebody deployed.
SELECT v.version, v.digest, v.manifest, v.contract, v.label, v.created_at, v.previous, f.name, f.paused
FROM semel.functions f JOIN semel.versions v ON v.function = f.name AND v.version = f.active
WHERE NOT f.removed AND v.digest <> 'built-in'
ORDER BY f.name
