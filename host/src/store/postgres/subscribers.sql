-- Whom events of topics ($1) fan out to.
SELECT topic, function FROM semel.subscriptions WHERE topic = ANY ($1) ORDER BY topic, function
