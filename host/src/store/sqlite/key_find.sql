-- What an idempotency key stands for, if it is still remembered.
SELECT fingerprint, message, ended_as FROM semel_keys k
WHERE function = ?1 AND key = ?2 AND (expires_at IS NULL OR expires_at > ?3)
  AND (while_active = 0 OR EXISTS (
      SELECT 1 FROM semel_messages m
      LEFT JOIN semel_queue q ON q.seq = m.seq
      LEFT JOIN semel_history h ON h.seq = m.seq
      WHERE m.id = k.message AND (q.seq IS NOT NULL OR h.state = 'in-doubt')
  ))
