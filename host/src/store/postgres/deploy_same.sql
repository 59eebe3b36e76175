-- The active version, if it is what is being deployed.
SELECT v.version FROM semel.functions f JOIN semel.versions v ON v.function = f.name AND v.version = f.active
WHERE f.name = $1 AND NOT f.removed AND v.digest = $2 AND v.manifest = $3 AND v.contract = $4
