-- The same for a state that few messages end in: found by the history's index, however long the rest is. The state, then
-- function and before, which may be NULL and come twice.
JOIN (
    SELECT e.seq FROM history e
    WHERE e.state = ? AND (? IS NULL OR e.`function` = ?) AND (? IS NULL OR e.seq < ?)
    ORDER BY e.seq DESC LIMIT ?
) AS page ON page.seq = m.seq
ORDER BY m.seq DESC
