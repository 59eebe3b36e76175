-- Of these (?3, an array), what is still in that state, oldest first. Not `completed`, whatever ?2 says.
SELECT h.seq, m.group_key FROM semel_history h JOIN semel_messages m ON m.seq = h.seq
WHERE h.seq IN (SELECT value FROM json_each(?3)) AND h.function = ?1 AND h.state = ?2 AND h.state <> 'completed'
  AND EXISTS (SELECT 1 FROM semel_functions f WHERE f.name = ?1 AND f.removed = 0)
ORDER BY h.seq
