-- Recovery, 2 of 4: begun and not ended is in-doubt; attempts used up is dead.
INSERT INTO semel_history
    (seq, function, state, attempt, attempts_before, fence, version, available_at, ended_at, error_kind, error_message)
SELECT seq, function, CASE WHEN begun_at IS NULL THEN 'dead' ELSE 'in-doubt' END, attempt, attempts_before, fence, version,
       available_at, ?2, 'host-lost',
       CASE WHEN begun_at IS NULL
            THEN 'its last attempt ended without a record (its host was lost), and there are no more'
            ELSE 'it had begun when its host was lost; whether it finished its outside effects is unknown' END
FROM semel_queue
WHERE state = 'running' AND (epoch <> ?1 OR lease_until <= ?2)
  AND (begun_at IS NOT NULL OR attempt - attempts_before >= max_attempts)
RETURNING state
