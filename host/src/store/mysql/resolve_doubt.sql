-- A person says how a message in doubt ended. The fence moves on: whoever held it has not ended it.
UPDATE history
SET state = ?, fence = fence + 1, ended_at = TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6)), error_kind = ?, error_message = ?
WHERE seq = ? AND state = 'in-doubt'
