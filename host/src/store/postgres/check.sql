-- A write that leaves nothing behind: no function has an empty name.
INSERT INTO semel.keys (function, key, fingerprint, message) VALUES ('', 'check', '', '') ON CONFLICT DO NOTHING
