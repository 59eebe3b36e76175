-- Keys whose window is over, at most $1, past those that somebody else forgets or takes over.
DELETE FROM semel.keys k USING (
    SELECT function, key FROM semel.keys WHERE expires_at <= (SELECT semel.now())
    ORDER BY expires_at LIMIT $1 FOR UPDATE SKIP LOCKED
) AS over
WHERE k.function = over.function AND k.key = over.key
