-- All groups at once, for a deploy that changes whether groups of a function are in order.
SELECT bucket FROM `groups` ORDER BY bucket FOR UPDATE
