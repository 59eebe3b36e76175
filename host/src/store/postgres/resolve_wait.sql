-- Waits until a transaction that acknowledges this message has ended, one way or the other.
SELECT 1 FROM semel.queue WHERE seq = $1 FOR UPDATE
