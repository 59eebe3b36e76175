-- The version of what a part of the host handles: there is one, and what it does is a part of the program. No app has this name.
INSERT INTO versions (`function`, version, app, digest, manifest, contract, label, created_at)
VALUES (?, 1, 'semel', 'built-in', ?, 'finish-once', 'external', TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6)))
ON DUPLICATE KEY UPDATE manifest = VALUES(manifest)
