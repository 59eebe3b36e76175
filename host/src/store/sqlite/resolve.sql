-- What is true about a claim: its message is completed under this fence, or still in the queue under some fence.
SELECT 'completed' AS state, fence FROM semel_history WHERE seq = ?1 AND state = 'completed'
UNION ALL
SELECT state, fence FROM semel_queue WHERE seq = ?1
