-- The active version, if it is what is being deployed.
SELECT v.version FROM semel_functions f JOIN semel_versions v ON v.function = f.name AND v.version = f.active
WHERE f.name = ?1 AND f.removed = 0 AND v.digest = ?2 AND v.manifest = ?3 AND v.contract = ?4
