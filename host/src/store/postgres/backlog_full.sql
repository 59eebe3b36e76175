-- Whether at least $2 messages of a function are in the queue. Whoever is accepted at this very moment does not count yet: a
-- lock would make acceptance one at a time.
SELECT EXISTS (SELECT 1 FROM semel.queue WHERE function = $1 LIMIT 1 OFFSET $2::bigint - 1)
