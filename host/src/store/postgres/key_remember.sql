-- Takes those of the keys that are not known, or whose time is over, and returns them. $1 functions, $2 keys, $3 fingerprints,
-- $4 messages, $5 windows (microseconds, NULL: no end), $6 while active; no key twice. It comes first: two at once wait for
-- each other here, so that they make one message, and in the order of the keys, so that they never wait in a circle. Those that
-- are not returned are locked as well: nobody forgets them or takes them over before this transaction ends. Only columns of
-- the key may be asked about: a subquery would see the world of before the wait.
INSERT INTO semel.keys AS k (function, key, fingerprint, message, expires_at, while_active)
SELECT function, key, fingerprint, message, semel.now() + span, while_active
FROM unnest($1::text[], $2::text[], $3::bytea[], $4::text[], $5::bigint[], $6::boolean[])
     AS t (function, key, fingerprint, message, span, while_active)
ORDER BY function, key
ON CONFLICT (function, key) DO UPDATE
SET fingerprint = excluded.fingerprint, message = excluded.message, expires_at = excluded.expires_at,
    while_active = excluded.while_active, ended_as = NULL
WHERE k.expires_at <= semel.now()
RETURNING function, key
