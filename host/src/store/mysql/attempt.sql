-- What an attempt used and said. A row that recovery wrote for a claim it took for lost is corrected by who ran it, who may
-- know no more than that (host-lost): then recovery, or the person who cancelled it, has said how it ended.
INSERT INTO attempts
    (seq, fence, attempt, `function`, version, host, claimed_at, started_at, ended_at, outcome, error,
     fuel, statements, sql_micros, published, logs, logs_dropped)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, COALESCE(?, TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6))), ?, ?, ?, ?, ?, ?, ?, ?)
ON DUPLICATE KEY UPDATE
    started_at = VALUES(started_at), ended_at = VALUES(ended_at),
    error = IF(VALUES(outcome) = 'host-lost', error, VALUES(error)),
    outcome = IF(VALUES(outcome) = 'host-lost', outcome, VALUES(outcome)),
    fuel = VALUES(fuel), statements = VALUES(statements), sql_micros = VALUES(sql_micros),
    published = VALUES(published), logs = VALUES(logs), logs_dropped = VALUES(logs_dropped)
