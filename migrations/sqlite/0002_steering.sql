-- What people decide about functions and messages, the order of groups, and how long things are kept.

-- A removed function stays listed until its last message has left the queue; to everybody else it is gone.
ALTER TABLE semel_functions ADD COLUMN paused  INTEGER NOT NULL DEFAULT 0;
ALTER TABLE semel_functions ADD COLUMN removed INTEGER NOT NULL DEFAULT 0;
ALTER TABLE semel_functions ADD COLUMN serial  INTEGER NOT NULL DEFAULT 0; -- 1: messages of one group run in order
ALTER TABLE semel_functions ADD COLUMN backlog INTEGER;                    -- most messages in the queue; NULL: no limit
ALTER TABLE semel_functions ADD COLUMN rate_at INTEGER NOT NULL DEFAULT 0; -- the rate limit's place in time

-- The version that was active when this one was deployed: where a rollback leads.
ALTER TABLE semel_versions ADD COLUMN previous INTEGER;

-- `blocked`: an earlier message of its group is still in the queue; such a row is never `due`.
-- `attempts_before`: attempts before the last redrive, which do not count against the limit.
ALTER TABLE semel_queue ADD COLUMN group_key TEXT;
ALTER TABLE semel_queue ADD COLUMN blocked INTEGER NOT NULL DEFAULT 0;
ALTER TABLE semel_queue ADD COLUMN attempts_before INTEGER NOT NULL DEFAULT 0;
ALTER TABLE semel_history ADD COLUMN attempts_before INTEGER NOT NULL DEFAULT 0;
UPDATE semel_queue SET group_key = (SELECT m.group_key FROM semel_messages m WHERE m.seq = semel_queue.seq);
DROP INDEX semel_queue_delayed;
CREATE INDEX semel_queue_delayed ON semel_queue (available_at) WHERE due = 0 AND blocked = 0;
CREATE INDEX semel_queue_group ON semel_queue (function, group_key, seq) WHERE group_key IS NOT NULL;
CREATE INDEX semel_queue_head ON semel_queue (function, group_key, state) WHERE blocked = 0 AND group_key IS NOT NULL;
DROP INDEX semel_history_state;
CREATE INDEX semel_history_state ON semel_history (function, state, seq, attempt);
CREATE INDEX semel_history_ended ON semel_history (state, ended_at);

-- `while_active`: the key is free again when its message is settled. `ended_as`: how it ended, once it is forgotten.
ALTER TABLE semel_keys ADD COLUMN while_active INTEGER NOT NULL DEFAULT 0;
ALTER TABLE semel_keys ADD COLUMN ended_as TEXT;
CREATE INDEX semel_keys_message ON semel_keys (message);
CREATE INDEX semel_keys_expiry ON semel_keys (expires_at) WHERE expires_at IS NOT NULL;

-- What people decided about messages: redriven, resolved, cancelled.
CREATE TABLE semel_decisions (
    seq      INTEGER NOT NULL,
    at       INTEGER NOT NULL,
    decision TEXT    NOT NULL,
    detail   TEXT    NOT NULL
);
CREATE INDEX semel_decisions_seq ON semel_decisions (seq);
