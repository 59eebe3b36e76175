-- A rehearsal is over (? hash of its token); and so is one that began an hour ago: its host died.
DELETE FROM rehearsals
WHERE token_hash = ? OR since < TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6)) - 3600000000
