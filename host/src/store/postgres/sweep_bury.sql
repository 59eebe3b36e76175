-- Of these ($1), what still waits and nobody else sweeps: out of the queue, and a history row for each. The function's row is
-- locked, so that a deploy which brings it back comes before or after. Functions themselves stay: see 0001_engine.sql.
WITH gone AS (
    DELETE FROM semel.queue WHERE seq = ANY (ARRAY(
        SELECT q.seq FROM semel.queue q JOIN semel.functions f ON f.name = q.function AND f.removed
        WHERE q.seq = ANY ($1) AND q.state = 'available'
        FOR UPDATE OF q SKIP LOCKED FOR SHARE OF f SKIP LOCKED
    ))
    RETURNING *
)
INSERT INTO semel.history
    (seq, function, state, attempt, attempts_before, fence, version, available_at, ended_at, error_kind, error_message)
SELECT seq, function, 'dead', attempt, attempts_before, fence, version, available_at, semel.now(), 'removed',
       'its function was removed; deploy it again, then redrive the message'
FROM gone
