-- Messages of a deployed function that could be redriven, oldest first, after ?3. Not `completed`, whatever ?2 says.
SELECT h.seq, m.id FROM semel_history h JOIN semel_messages m ON m.seq = h.seq
WHERE h.function = ?1 AND h.state = ?2 AND h.state <> 'completed' AND h.seq > ?3
  AND EXISTS (SELECT 1 FROM semel_functions f WHERE f.name = ?1 AND f.removed = 0)
ORDER BY h.seq LIMIT ?4
