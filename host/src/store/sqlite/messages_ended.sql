-- The same for a state that few messages end in: found by the history's index, however long the rest is.
WHERE m.seq IN (
    SELECT seq FROM semel_history
    WHERE state = ?2 AND (?1 IS NULL OR function = ?1) AND (?3 IS NULL OR seq < ?3)
    ORDER BY seq DESC LIMIT ?4
)
ORDER BY m.seq DESC
