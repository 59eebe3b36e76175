-- Remembers a key; an expired one is taken over.
INSERT INTO semel_keys (function, key, fingerprint, message, expires_at) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (function, key) DO UPDATE
SET fingerprint = excluded.fingerprint, message = excluded.message, expires_at = excluded.expires_at
