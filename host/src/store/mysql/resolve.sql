-- What is true about a claim: its message is completed under this fence, or still in the queue under some fence. A statement
-- of its own after resolve_wait.sql, which saw the world of before the wait.
SELECT 'completed' AS state, fence FROM history WHERE seq = ? AND state = 'completed'
UNION ALL
SELECT state, fence FROM queue WHERE seq = ?
