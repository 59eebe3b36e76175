-- The attempts at one message, oldest first, and the one that goes on.
SELECT a.attempt, a.fence, a.version, a.host, a.claimed_at, a.started_at, a.ended_at, a.outcome, a.error,
       a.fuel, a.statements, a.sql_micros, a.published, a.logs, a.logs_dropped
FROM messages m JOIN attempts a ON a.seq = m.seq WHERE m.id = ?
UNION ALL
SELECT q.attempt, q.fence, q.version, q.host, q.claimed_at, NULL, NULL, 'running', NULL, 0, 0, 0, 0, '[]', 0
FROM messages m JOIN queue q ON q.seq = m.seq WHERE m.id = ? AND q.state = 'running'
ORDER BY 2
