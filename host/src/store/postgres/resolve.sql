-- What is true about a claim: its message is completed under this fence, or still in the queue under some fence. A statement
-- of its own after resolve_wait.sql, which saw the world of before the wait.
SELECT 'completed' AS state, fence FROM semel.history WHERE seq = $1 AND state = 'completed'
UNION ALL
SELECT state, fence FROM semel.queue WHERE seq = $1
