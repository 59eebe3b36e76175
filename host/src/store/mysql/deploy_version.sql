-- The next version of a function, whose app's login runs it, and where a rollback from it leads. The function comes first and
-- twice at the end.
INSERT INTO versions (`function`, version, digest, manifest, contract, label, created_at, app, previous)
SELECT ?, COALESCE(MAX(v.version), 0) + 1, ?, ?, ?, ?, TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6)), ?,
       (SELECT f.active FROM functions f WHERE f.name = ? AND f.removed = 0)
FROM versions v WHERE v.`function` = ?
