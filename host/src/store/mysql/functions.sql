-- The active version of every function that somebody deployed.
SELECT v.version, v.digest, v.manifest, v.contract, v.label, v.created_at, v.previous, f.name, f.paused
FROM functions f JOIN versions v ON v.`function` = f.name AND v.version = f.active
WHERE f.removed = 0 AND v.digest <> 'built-in'
ORDER BY f.name
