-- Recovery, 2 of 3: begun and not ended is in-doubt; attempts used up is dead. Out of the queue in the same statement.
WITH gone AS (
    DELETE FROM semel.queue
    WHERE seq = ANY ($1) AND (begun_at IS NOT NULL OR attempt - attempts_before >= max_attempts)
    RETURNING *
)
INSERT INTO semel.history
    (seq, function, state, attempt, attempts_before, fence, version, available_at, ended_at, error_kind, error_message)
SELECT seq, function, CASE WHEN begun_at IS NULL THEN 'dead' ELSE 'in-doubt' END, attempt, attempts_before, fence, version,
       available_at, semel.now(), 'host-lost',
       CASE WHEN begun_at IS NULL
            THEN 'its last attempt ended without a record (its host was lost), and there are no more'
            ELSE 'it had begun when its host was lost; whether it finished its outside effects is unknown' END
FROM gone
RETURNING state
