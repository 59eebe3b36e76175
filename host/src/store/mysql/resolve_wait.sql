-- Waits until a transaction that acknowledges this message has ended, one way or the other.
SELECT 1 FROM queue WHERE seq = ? FOR UPDATE
