-- Keys whose window is over.
DELETE FROM semel_keys WHERE (function, key) IN (
    SELECT function, key FROM semel_keys WHERE expires_at <= ?1 ORDER BY expires_at LIMIT ?2
)
