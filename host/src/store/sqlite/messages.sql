-- Newest first. Each of ?1 function, ?2 state, ?3 before may be NULL.
WHERE (?1 IS NULL OR m.function = ?1)
  AND (?2 IS NULL OR COALESCE(q.state, h.state) = ?2) AND (?3 IS NULL OR m.seq < ?3)
ORDER BY m.seq DESC LIMIT ?4
