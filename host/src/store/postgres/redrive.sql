-- Messages ($1, an array) back into the queue with their fences, so that every claim of before stays behind; their attempts
-- count anew. Out of the history in the same statement: of two at once one finds nothing. Blocked until group_order.sql, if
-- groups of the function are in order. All at one time, so that they stay in the order of acceptance. Returns what came back.
WITH clock AS MATERIALIZED (SELECT semel.now() AS now),
back AS (
    DELETE FROM semel.history h USING semel.messages m, semel.functions f
    WHERE h.seq = ANY ($1) AND h.state IN ('dead', 'in-doubt', 'cancelled')
      AND m.seq = h.seq AND f.name = h.function AND NOT f.removed
    RETURNING h.seq, h.function, h.state, m.group_key, m.priority, h.attempt, h.fence, h.version, h.error_kind, h.error_message,
              f.serial AND m.group_key IS NOT NULL AS blocked
),
queued AS (
    INSERT INTO semel.queue
        (seq, function, group_key, state, priority, available_at, due, blocked, attempt, attempts_before, fence, version,
         error_kind, error_message)
    SELECT seq, function, group_key, 'available', priority, (SELECT now FROM clock), NOT blocked, blocked, attempt, attempt, fence, version,
           error_kind, error_message
    FROM back
)
SELECT seq, state FROM back
