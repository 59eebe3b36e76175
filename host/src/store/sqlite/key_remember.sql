-- Remembers a key; one whose time is over is taken over.
INSERT INTO semel_keys (function, key, fingerprint, message, expires_at, while_active) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
ON CONFLICT (function, key) DO UPDATE
SET fingerprint = excluded.fingerprint, message = excluded.message, expires_at = excluded.expires_at,
    while_active = excluded.while_active, ended_as = NULL
