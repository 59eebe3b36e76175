-- What became of a call. One that was given up may turn out to have ended; one that has ended stays as it is.
UPDATE semel_calls SET state = ?2, status = ?3, detail = ?4, ended_at = ?5
WHERE id = ?1 AND state IN ('intended', 'unknown')
