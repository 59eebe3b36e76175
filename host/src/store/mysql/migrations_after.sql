-- App migrations that came with versions of this function after the given one.
SELECT a.name FROM app_migrations a JOIN versions v ON v.`function` = a.`function` AND v.version = ?
WHERE a.`function` = ? AND a.applied_at > v.created_at ORDER BY a.name
