-- The version of what a part of the host handles: there is one, and what it does is a part of the program. No app has this name.
INSERT INTO semel.versions (function, version, app, digest, manifest, contract, label, created_at)
VALUES ($1, 1, 'semel', 'built-in', $2, 'finish-once', 'external', semel.now())
ON CONFLICT (function, version) DO UPDATE SET manifest = excluded.manifest
