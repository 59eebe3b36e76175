-- Takes keys that key_find.sql found to stand for nothing any more, under the locks of key_remember.sql and with its parameters.
UPDATE semel.keys k
SET fingerprint = t.fingerprint, message = t.message, expires_at = semel.now() + t.span, while_active = t.while_active,
    ended_as = NULL
FROM unnest($1::text[], $2::text[], $3::bytea[], $4::text[], $5::bigint[], $6::boolean[])
     AS t (function, key, fingerprint, message, span, while_active)
WHERE k.function = t.function AND k.key = t.key
