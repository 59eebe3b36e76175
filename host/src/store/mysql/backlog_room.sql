-- How many messages of a function are in the queue, counted up to its limit: the cost grows with the limit, not with the
-- queue. Whoever is accepted at this very moment does not count yet: a lock would make acceptance one at a time.
SELECT COUNT(*) FROM (SELECT 1 FROM queue FORCE INDEX (queue_claim) WHERE `function` = ? LIMIT ?) AS waiting
