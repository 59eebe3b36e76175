-- Their attempts.
INSERT INTO attempts
    (seq, fence, attempt, `function`, version, host, claimed_at, started_at, ended_at, outcome, fuel, statements, sql_micros,
     published, logs, logs_dropped)
SELECT seq, 1, 1, `function`, 1, '0123456789abcdef', accepted_at, accepted_at, accepted_at, 'completed', 9000, 2, 100,
       0, '[]', 0
FROM messages WHERE seq > ?
