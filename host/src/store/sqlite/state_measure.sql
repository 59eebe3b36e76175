-- The sizes of what state_scan.sql would return, so that it is asked for no more than may be held.
SELECT length(value) FROM semel_state
WHERE namespace = ?1 AND key >= ?3 AND key > ?2 AND substr(CAST(key AS BLOB), 1, ?5) = CAST(?3 AS BLOB)
ORDER BY key LIMIT ?4
