-- Whom messages for functions ($1) are for: those that are deployed, and how many more their backlog limit lets in (NULL: any
-- number). Whoever is accepted at this very moment does not count yet: a lock would make acceptance one at a time. The cost
-- grows with the limit, not with the queue.
SELECT f.name, CASE WHEN f.backlog IS NOT NULL THEN
    f.backlog - (SELECT count(*) FROM (SELECT FROM semel.queue q WHERE q.function = f.name LIMIT f.backlog) AS waiting)
END AS room
FROM semel.functions f WHERE f.name = ANY ($1) AND NOT f.removed
