-- The version of what a part of the host handles: there is one, and what it does is a part of the program.
INSERT INTO semel_versions (function, version, digest, manifest, contract, label, created_at)
VALUES (?1, 1, 'built-in', ?2, 'finish-once', 'external', ?3)
ON CONFLICT (function, version) DO UPDATE SET manifest = excluded.manifest
