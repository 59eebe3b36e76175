-- The ledger of outside calls, in a file of its own: a guest's transaction holds the one write lock of the other.

-- One row per call and attempt. `intended` is committed before the first byte of the request leaves, so a call that is
-- not here did not happen.
CREATE TABLE semel_calls (
    id          INTEGER PRIMARY KEY,
    message     TEXT    NOT NULL,
    function    TEXT    NOT NULL,
    fence       INTEGER NOT NULL,
    attempt     INTEGER NOT NULL,
    ordinal     INTEGER NOT NULL, -- from 0 within the attempt
    method      TEXT    NOT NULL,
    url         TEXT    NOT NULL, -- without its query, where secrets are
    key         TEXT    NOT NULL, -- the Idempotency-Key that was sent
    state       TEXT    NOT NULL CHECK (state IN ('intended', 'done', 'failed', 'unknown')),
    status      INTEGER,          -- of the answer
    detail      TEXT,             -- why it failed, or is unknown
    intended_at INTEGER NOT NULL,
    ended_at    INTEGER
) STRICT;

CREATE INDEX semel_calls_message ON semel_calls (message, ordinal);
CREATE INDEX semel_calls_state ON semel_calls (state);
