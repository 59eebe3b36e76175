-- Takes a key that is not known, or whose time is over; no row if somebody has it. It comes first: two at once wait for
-- each other here, so that they make one message. Only columns of the key may be asked about: a subquery would see the
-- world of before the wait.
INSERT INTO semel.keys AS k (function, key, fingerprint, message, expires_at, while_active) VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT (function, key) DO UPDATE
SET fingerprint = excluded.fingerprint, message = excluded.message, expires_at = excluded.expires_at,
    while_active = excluded.while_active, ended_as = NULL
WHERE k.expires_at <= semel.now()
RETURNING 1
