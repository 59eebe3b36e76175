-- The same for a state that few messages end in: found by the history's index, however long the rest is.
WHERE m.seq IN (
    SELECT h.seq FROM semel.functions f CROSS JOIN LATERAL (
        SELECT e.seq FROM semel.history e
        WHERE e.function = f.name AND e.state = $2 AND ($3::bigint IS NULL OR e.seq < $3)
        ORDER BY e.seq DESC LIMIT $4
    ) AS h
    WHERE $1::text IS NULL OR f.name = $1
    ORDER BY h.seq DESC LIMIT $4
)
ORDER BY m.seq DESC
