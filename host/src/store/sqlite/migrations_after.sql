-- App migrations that came with versions of this function after the given one.
SELECT a.name FROM semel_app_migrations a JOIN semel_versions v ON v.function = ?1 AND v.version = ?2
WHERE a.function = ?1 AND a.applied_at > v.created_at ORDER BY a.name
