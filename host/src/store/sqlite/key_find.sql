-- What an idempotency key stands for, if it is still remembered.
SELECT fingerprint, message FROM semel_keys WHERE function = $1 AND key = $2 AND (expires_at IS NULL OR expires_at > $3)
