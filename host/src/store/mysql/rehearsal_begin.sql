-- Announces a rehearsal: ? hash of a fresh token, ? function, ? version.
INSERT INTO rehearsals (token_hash, `function`, version, since)
VALUES (?, ?, ?, TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6)))
