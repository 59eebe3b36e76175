-- What a key stands for, and whether it still does; a statement of its own after key_remember.sql found it taken. No row:
-- it has just been forgotten, begin again. Not active: key_retake.sql.
SELECT fingerprint, message, ended_as,
       (expires_at IS NULL OR expires_at > semel.now())
       AND (NOT while_active OR EXISTS (
           SELECT FROM semel.messages m
           LEFT JOIN semel.queue q ON q.seq = m.seq
           LEFT JOIN semel.history h ON h.seq = m.seq
           WHERE m.id = k.message AND (q.seq IS NOT NULL OR h.state = 'in-doubt')
       )) AS active
FROM semel.keys k
WHERE function = $1 AND key = $2
