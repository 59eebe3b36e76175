-- Newest first. Each of function, state, before may be NULL, and comes twice.
WHERE (? IS NULL OR m.`function` = ?) AND (? IS NULL OR COALESCE(q.state, h.state) = ?) AND (? IS NULL OR m.seq < ?)
ORDER BY m.seq DESC LIMIT ?
