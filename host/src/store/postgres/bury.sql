-- A message that is given up, if this very claim still holds: out of the queue, and from what was taken out its history
-- row. Reading first and removing later would let two make the row at once.
WITH gone AS (
    DELETE FROM semel.queue WHERE seq = $1 AND fence = $2 AND token_hash = $3 AND state = 'running' RETURNING *
)
INSERT INTO semel.history
    (seq, function, state, attempt, attempts_before, fence, version, available_at, ended_at, error_kind, error_message)
SELECT seq, function, 'dead', attempt, attempts_before, fence, version, available_at, semel.now(), $4, $5 FROM gone
