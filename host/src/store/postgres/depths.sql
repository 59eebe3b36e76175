-- What waits or runs, and what needs a decision (of deployed functions: nobody can redrive the rest); of what waits, for how
-- long (microseconds) the first has been due.
SELECT function, state, COUNT(*) AS messages,
       (SELECT semel.now()) - MIN(CASE WHEN state = 'available' AND available_at <= (SELECT semel.now()) THEN available_at END)
FROM semel.queue GROUP BY function, state
UNION ALL
SELECT f.name, s.state, (SELECT COUNT(*) FROM semel.history h WHERE h.function = f.name AND h.state = s.state), NULL
FROM semel.functions f, (VALUES ('dead'), ('in-doubt')) AS s (state)
WHERE NOT f.removed
