-- Whom an event fans out to.
SELECT function FROM semel_subscriptions WHERE topic = ?1 ORDER BY function
