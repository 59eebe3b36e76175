-- All groups at once, for a deploy that changes whether groups of a function are in order.
SELECT count(*) FROM (SELECT FROM semel.groups ORDER BY bucket FOR UPDATE) AS locked
