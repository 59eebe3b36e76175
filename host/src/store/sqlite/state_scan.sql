-- Keys that begin with a prefix, in byte order, after a key. `?3` is the prefix, `?5` its length in bytes.
SELECT key, value FROM semel_state
WHERE namespace = ?1 AND key >= ?3 AND key > ?2 AND substr(CAST(key AS BLOB), 1, ?5) = CAST(?3 AS BLOB)
ORDER BY key LIMIT ?4
