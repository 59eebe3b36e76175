-- The active version, if it is what is being deployed.
SELECT v.version FROM functions f JOIN versions v ON v.`function` = f.name AND v.version = f.active
WHERE f.name = ? AND f.removed = 0 AND v.digest = ? AND v.manifest = ? AND v.contract = ?
