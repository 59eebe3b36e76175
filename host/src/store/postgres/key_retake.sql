-- Takes a key whose message ($7) is settled, unless somebody else was faster: then no row, and everything begins again.
UPDATE semel.keys SET fingerprint = $3, message = $4, expires_at = $5, while_active = $6, ended_as = NULL
WHERE function = $1 AND key = $2 AND message = $7
RETURNING 1
