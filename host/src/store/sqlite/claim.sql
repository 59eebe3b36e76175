-- Claims due messages of one function: attempt and fence count up here, before anything runs, so that a message which
-- kills its host is counted too. No SKIP LOCKED: SQLite has one writer.
UPDATE semel_queue
SET state = 'running', attempt = attempt + 1, fence = fence + 1, suspect = 0, begun_at = NULL,
    token_hash = ?1, epoch = ?2, host = ?3, version = ?4, contract = ?5, max_attempts = ?6,
    claimed_at = ?7, lease_until = ?7 + ?8
WHERE seq IN (
    SELECT seq FROM semel_queue
    WHERE function = ?9 AND state = 'available' AND suspect = ?10 AND due = 1
    ORDER BY priority DESC, available_at, seq
    LIMIT ?11
)
RETURNING seq, fence, attempt, attempts_before
