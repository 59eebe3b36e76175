-- The attempts at one message, oldest first, and the one that goes on.
SELECT a.attempt, a.fence, a.version, a.host, a.claimed_at, a.started_at, a.ended_at, a.outcome, a.error,
       a.fuel, a.statements, a.sql_micros, a.published, a.logs, a.logs_dropped
FROM semel_messages m JOIN semel_attempts a ON a.seq = m.seq WHERE m.id = ?1
UNION ALL
SELECT q.attempt, q.fence, q.version, q.host, q.claimed_at, NULL, NULL, 'running', NULL, 0, 0, 0, 0, '[]', 0
FROM semel_messages m JOIN semel_queue q ON q.seq = m.seq WHERE m.id = ?1 AND q.state = 'running'
ORDER BY 2
