-- What an attempt used and said. A row that recovery wrote for a claim it took for lost is corrected by who ran it, who may
-- know no more than that (host-lost): then recovery, or the person who cancelled it, has said how it ended.
INSERT INTO semel_attempts AS known
    (seq, fence, attempt, function, version, host, claimed_at, started_at, ended_at, outcome, error,
     fuel, statements, sql_micros, published, logs, logs_dropped)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17)
ON CONFLICT (seq, fence) DO UPDATE
SET started_at = excluded.started_at, ended_at = excluded.ended_at,
    outcome = CASE excluded.outcome WHEN 'host-lost' THEN known.outcome ELSE excluded.outcome END,
    error = CASE excluded.outcome WHEN 'host-lost' THEN known.error ELSE excluded.error END,
    fuel = excluded.fuel, statements = excluded.statements, sql_micros = excluded.sql_micros,
    published = excluded.published, logs = excluded.logs, logs_dropped = excluded.logs_dropped
