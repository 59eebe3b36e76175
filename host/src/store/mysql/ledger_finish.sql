-- What became of a call. One that was given up may turn out to have ended; one that has ended stays as it is.
UPDATE calls SET state = ?, status = ?, detail = ?, ended_at = TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6))
WHERE id = ? AND state IN ('intended', 'unknown')
