-- A person says how a message in doubt ended. The fence moves on: whoever held it has not ended it.
UPDATE semel_history
SET state = ?2, fence = fence + 1, ended_at = ?3,
    error_kind = CASE ?2 WHEN 'dead' THEN 'resolved' END,
    error_message = CASE ?2 WHEN 'dead' THEN 'resolved as dead by a person' END
WHERE seq = ?1 AND state = 'in-doubt'
