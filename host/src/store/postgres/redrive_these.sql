-- Of these ($3, an array), what is still in that state, oldest first. Not `completed`, whatever $2 says.
SELECT h.seq, m.group_key FROM semel.history h JOIN semel.messages m ON m.seq = h.seq
WHERE h.seq = ANY ($3) AND h.function = $1 AND h.state = $2 AND h.state <> 'completed'
  AND EXISTS (SELECT 1 FROM semel.functions f WHERE f.name = $1 AND NOT f.removed)
ORDER BY h.seq
