-- The ledger of outside calls. Each operation is a statement of the engine's own, and so a commit of its own: what a guest's
-- transaction does or undoes has nothing to do with it.
--
-- LOCKS: rows of `calls` come last, after those of 0001_engine.sql; who changes several takes them by id and skips what is
-- locked.
--
-- TRANSACTIONS: ledger_intend, ledger_finish, ledger_abandon: one statement each. recover ends with ledger_recover, also where
-- it found nothing. forget has ledger_forget before forget_messages.

-- One row per call and attempt. `intended` is committed before the first byte of the request leaves, so a call that is
-- not here did not happen.
CREATE TABLE semel.calls (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    message     text   NOT NULL,
    function    text   NOT NULL,
    fence       bigint NOT NULL,
    attempt     bigint NOT NULL,
    ordinal     bigint NOT NULL, -- from 0 within the attempt
    method      text   NOT NULL,
    url         text   NOT NULL, -- without its query, where secrets are
    key         text   NOT NULL, -- the Idempotency-Key that was sent
    state       text   NOT NULL CHECK (state IN ('intended', 'done', 'failed', 'unknown')),
    status      bigint,          -- of the answer
    detail      text,            -- why it failed, or is unknown
    intended_at bigint NOT NULL,
    ended_at    bigint
);

CREATE INDEX calls_message ON semel.calls (message, ordinal);
CREATE INDEX calls_open ON semel.calls (state, id) WHERE state IN ('intended', 'unknown');
