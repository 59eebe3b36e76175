-- Semel on MariaDB and MySQL: the engine's tables. 0002_groups.sql keeps groups in order, 0003_api.sql holds what the logins
-- of apps may call.
--
-- Run by the engine's login, which has all rights on the database and on those of the apps. The same tables and columns as on
-- Postgres; every number and every flag is a bigint, every time microseconds since 1970 by this server's clock. What
-- differs:
-- - DDL commits by itself, so no migration is atomic: each can be run again from its beginning, and one host at a time runs
--   them (schema.rs).
-- - Texts that are compared are either names of ours (utf8mb4_bin, which takes 'a' and 'a ' for the same) or somebody else's
--   words in bytes (VARBINARY): keys, group keys, topics that are subscribed to.
-- - There are no partial indexes and, for long, no descending ones: `urgency` is -priority.
-- - No stored functions: with a binary log they may need rights that nobody gives. The clock is said each time:
--   TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6)), the beginning of the statement, not of the transaction.
-- - No RETURNING on MySQL: what is removed or claimed is locked first, then read and changed.
-- - Lists travel as one JSON parameter and are tables by JSON_TABLE, joined first (STRAIGHT_JOIN): the statistics of a queue
--   are always wrong.
--
-- SESSIONS. The engine's: READ COMMITTED, innodb_lock_wait_timeout = 5, time_zone = '+00:00', a strict sql_mode, and 5 s in
-- an open transaction without a word (idle_transaction_timeout; MySQL has wait_timeout alone): a host that stands still
-- must let go of its rows. An app's: autocommit = 0, READ COMMITTED, the same with its lease.
-- A statement that waited too long for a lock (1205) is undone, and its transaction is not: we always end it.
--
-- LOCKS, always taken in this order, so that nobody waits in a circle:
--   1. `store` (deploy, activate, remove)   2. `cron`   3. an idempotency key   4. `groups`, sorted (lock_groups)
--   5. `functions` (a claim's limits, SKIP LOCKED)   6. rows of `queue`, by seq   7. `history`, `attempts`, `calls`, the rest.
-- A change to a grouped message takes the lock of its group first; claim, promote, heartbeat, begin and resolve take no
-- group's lock: the first three skip rows that are locked. Recover, sweep and forget skip them too. InnoDB also locks entries
-- of indexes, in an order of its own, so a deadlock (1213) can be all the same: one of the two is undone, and tried again.
--
-- TRANSACTIONS (files in host/src/store/mysql; [ ] only with a group; one line is one transaction)
--   open       engine_find; not there: a lock by name, the migrations, install; else further migrations, schema_advance
--   enqueue    target, backlog_room, subscribers; key_remember, in the order of the keys; key_find; not active: key_retake; a
--              full backlog: key_return; [group_lock]; enqueue; enqueue_queue; [group_order]
--   claim      promote_find, promote.  rate_read (lanes with a limit over all hosts that it does not return are being claimed
--              by another host: leave them out); lanes; claim_find for each; claim; claimed; rate_write
--   begin, suspects, pause: one statement each
--   heartbeat  heartbeat_find; heartbeat; heartbeat_lost
--   recover    recover_find (nothing: done); recover_groups; recover_lock; recover_attempts; end, leave_queue; recover_free;
--              [group_order]; ledger_recover.  For each group that recover_groups did not get, another one: wait 1 s at most;
--              group_lock of that group alone; then the same (1205: the next)
--   settle     [group_lock]; hold; retry, or end and leave_queue; attempt; [group_order]; commit in any case
--   resolve    resolve_wait, 2 s at most (1205: KILL the old session, again); resolve
--   run        app's session: CALL enter; SAVEPOINT canary; the guest; RELEASE SAVEPOINT canary; CALL ack; COMMIT
--   redrive    standing; [group_lock]; redrive_lock (no row: read standing again); redrive; leave_history; [group_order]; decide
--   resolve_doubt  standing; resolve_doubt; decide
--   cancel     standing; [group_lock]; cancel_lock (no row: read standing again); cancel_attempt; end; leave_queue;
--              [group_order]; decide
--   sweep      sweep_find; [group_lock]; sweep_lock; end; leave_queue; [group_order]
--   forget     forget_find, alone; forget_lock; leave_history; forget_active_keys; forget_outlived; ledger_forget;
--              forget_attempts; forget_decisions; forget_messages.  forget_keys_find, forget_keys
--   fire       fire_lock (no row: done); enqueue, for one event without a group or a key; fire. Not accepted: rolled back
--   deploy     (migrations of the app, each statement a commit); deploy_lock; deploy_same; deploy_component; deploy_version;
--              deploy_serial_was (if it changes: groups_lock_all); deploy_activate; (if it changes: deploy_serial or
--              deploy_parallel); deploy_unsubscribe; deploy_subscribe; deploy_unschedule; deploy_schedule
--   remove     deploy_lock; remove; deploy_unsubscribe; deploy_unschedule
--
-- SQLSTATEs of ours: SM001 enter: stale or foreign claim (Fenced). SM002 ack: the claim no longer holds (Fenced). SM004 a call
-- from a transaction that did not enter, or with another token. SM005 claims of two versions in one transaction. Try again:
-- 1213 deadlock, 1205 lock wait timeout, 1020 changed since it was read, a killed session or statement, no connection.

-- What has no collation of its own is compared as these tables are: parameters of procedures, columns of JSON_TABLE.
ALTER DATABASE CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- Messages as they were accepted. Never updated; `seq` is the order of acceptance.
CREATE TABLE IF NOT EXISTS messages (
    seq          BIGINT       NOT NULL AUTO_INCREMENT PRIMARY KEY,
    id           VARCHAR(64)  NOT NULL UNIQUE,
    event        LONGTEXT     NOT NULL,
    `function`   VARCHAR(190) NOT NULL,
    topic        LONGTEXT     NOT NULL,
    group_key    VARBINARY(512),
    content_type LONGTEXT,
    headers      LONGTEXT     NOT NULL, -- JSON: [[name, value], …]
    body         LONGBLOB     NOT NULL,
    priority     BIGINT       NOT NULL,
    accepted_at  BIGINT       NOT NULL,
    due_at       BIGINT       NOT NULL
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- What is waiting or running, and nothing else: a message leaves this table with its acknowledgement. `lease_until` and
-- `begun_at` are in no index, so heartbeats and begins stay in their row.
CREATE TABLE IF NOT EXISTS queue (
    seq             BIGINT       NOT NULL PRIMARY KEY,
    `function`      VARCHAR(190) NOT NULL,
    group_key       VARBINARY(512),
    state           VARCHAR(16)  NOT NULL CHECK (state IN ('available', 'running')),
    urgency         BIGINT       NOT NULL,           -- -priority: the smaller, the sooner
    available_at    BIGINT       NOT NULL,
    due             BIGINT       NOT NULL,           -- 0: `available_at` had not come when somebody last looked
    blocked         BIGINT       NOT NULL DEFAULT 0, -- 1: an earlier message of its group is in the queue; never `due`
    suspect         BIGINT       NOT NULL DEFAULT 0, -- 1: the last claim ended without a record; runs alone
    attempt         BIGINT       NOT NULL DEFAULT 0,
    attempts_before BIGINT       NOT NULL DEFAULT 0, -- before the last redrive: they do not count against the limit
    fence           BIGINT       NOT NULL DEFAULT 0,
    token_hash      VARBINARY(32),
    host            VARCHAR(190),
    version         BIGINT,
    contract        VARCHAR(64),
    max_attempts    BIGINT,
    claimed_at      BIGINT,
    lease_until     BIGINT,
    begun_at        BIGINT,
    error_kind      VARCHAR(190),
    error_message   LONGTEXT,
    CHECK (NOT (blocked = 1 AND due = 1)),
    CHECK (NOT (blocked = 1 AND state = 'running')),
    -- Claims; what runs of a function (recovery, limits over all hosts); what waits of it (backlog, sweeps).
    INDEX queue_claim (`function`, state, suspect, due, urgency, available_at, seq),
    INDEX queue_delayed (due, blocked, available_at),
    INDEX queue_group (`function`, group_key, blocked, seq)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- Where messages end: completed, dead, in-doubt or cancelled.
CREATE TABLE IF NOT EXISTS history (
    seq                 BIGINT       NOT NULL PRIMARY KEY,
    `function`          VARCHAR(190) NOT NULL,
    state               VARCHAR(16)  NOT NULL CHECK (state IN ('completed', 'dead', 'in-doubt', 'cancelled')),
    attempt             BIGINT       NOT NULL,
    attempts_before     BIGINT       NOT NULL DEFAULT 0,
    fence               BIGINT       NOT NULL,
    version             BIGINT,
    available_at        BIGINT       NOT NULL,
    ended_at            BIGINT       NOT NULL,
    error_kind          VARCHAR(190),
    error_message       LONGTEXT,
    answered            BIGINT       NOT NULL DEFAULT 0,
    answer_content_type LONGTEXT,
    answer_headers      LONGTEXT,
    answer_body         LONGBLOB,
    INDEX history_state (`function`, state, seq, attempt),
    INDEX history_ended (state, ended_at)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- One row per claim that ended, written at its settlement (or by whoever found that it was lost).
CREATE TABLE IF NOT EXISTS attempts (
    seq          BIGINT       NOT NULL,
    fence        BIGINT       NOT NULL,
    attempt      BIGINT       NOT NULL,
    `function`   VARCHAR(190) NOT NULL,
    version      BIGINT       NOT NULL,
    host         VARCHAR(190) NOT NULL,
    claimed_at   BIGINT       NOT NULL,
    started_at   BIGINT,
    ended_at     BIGINT,
    outcome      VARCHAR(64)  NOT NULL,
    error        LONGTEXT,
    fuel         BIGINT,
    statements   BIGINT       NOT NULL DEFAULT 0,
    sql_micros   BIGINT       NOT NULL DEFAULT 0,
    published    BIGINT       NOT NULL DEFAULT 0,
    logs         LONGTEXT     NOT NULL, -- JSON: [{at, level, message, fields}, …]
    logs_dropped BIGINT       NOT NULL DEFAULT 0,
    PRIMARY KEY (seq, fence),
    INDEX attempts_outcome (outcome, `function`)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- Idempotency keys, apart from messages, so that each is kept as long as it is needed.
CREATE TABLE IF NOT EXISTS `keys` (
    `function`   VARCHAR(190)   NOT NULL,
    `key`        VARBINARY(512) NOT NULL,
    fingerprint  VARBINARY(64)  NOT NULL,
    message      VARCHAR(64)    NOT NULL,
    expires_at   BIGINT,                   -- NULL: never
    while_active BIGINT NOT NULL DEFAULT 0, -- 1: the key is free again when its message is settled
    ended_as     VARCHAR(16),              -- how its message ended, once that is forgotten
    taker        VARBINARY(16),            -- random, of the call that made the row: whether it is its own
    PRIMARY KEY (`function`, `key`),
    INDEX keys_message (message),
    INDEX keys_expiry (expires_at)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- The key-value store of guests; keys in byte order.
CREATE TABLE IF NOT EXISTS state (
    namespace VARCHAR(190)   NOT NULL,
    `key`     VARBINARY(512) NOT NULL CHECK (LENGTH(`key`) >= 1),
    value     LONGBLOB       NOT NULL CHECK (LENGTH(value) <= 1048576),
    PRIMARY KEY (namespace, `key`)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

CREATE TABLE IF NOT EXISTS components (
    digest VARCHAR(190) NOT NULL PRIMARY KEY,
    bytes  LONGBLOB     NOT NULL
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- The users of each app: whose session its guests have, who owns its database (NULL: somebody whom no host knows). No row
-- where guests run as the engine.
CREATE TABLE IF NOT EXISTS apps (
    app   VARCHAR(190) NOT NULL PRIMARY KEY,
    login VARCHAR(190) NOT NULL UNIQUE,
    owner VARCHAR(190) UNIQUE
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

CREATE TABLE IF NOT EXISTS versions (
    `function` VARCHAR(190) NOT NULL,
    version    BIGINT       NOT NULL,
    app        VARCHAR(190) NOT NULL, -- whose login runs it
    digest     VARCHAR(190) NOT NULL,
    manifest   LONGTEXT     NOT NULL,
    contract   VARCHAR(64)  NOT NULL,
    label      VARCHAR(64)  NOT NULL,
    created_at BIGINT       NOT NULL,
    previous   BIGINT,                -- the version that was active when this one was deployed: where a rollback leads
    PRIMARY KEY (`function`, version)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- A removed function's row stays for ever, so that what arrives late is still found and swept.
CREATE TABLE IF NOT EXISTS functions (
    name    VARCHAR(190) NOT NULL PRIMARY KEY,
    app     VARCHAR(190) NOT NULL,
    active  BIGINT       NOT NULL,
    paused  BIGINT       NOT NULL DEFAULT 0,
    removed BIGINT       NOT NULL DEFAULT 0,
    serial  BIGINT       NOT NULL DEFAULT 0, -- 1: messages of one group run in order
    backlog BIGINT,                          -- most messages in the queue; NULL: no limit
    rate_at BIGINT       NOT NULL DEFAULT 0  -- the rate limit's place in time
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

CREATE TABLE IF NOT EXISTS subscriptions (
    topic      VARBINARY(1024) NOT NULL,
    `function` VARCHAR(190)    NOT NULL,
    PRIMARY KEY (topic, `function`)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- App migrations that were applied, so that each is applied once and a changed one is noticed.
CREATE TABLE IF NOT EXISTS app_migrations (
    app        VARCHAR(190) NOT NULL,
    name       VARCHAR(190) NOT NULL,
    `function` VARCHAR(190) NOT NULL, -- whose deploy applied it
    checksum   VARCHAR(64)  NOT NULL,
    applied_at BIGINT       NOT NULL,
    PRIMARY KEY (app, name)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- Of app migrations that are not applied to their end, the statements that are: each commits by itself.
CREATE TABLE IF NOT EXISTS app_migration_steps (
    app    VARCHAR(190) NOT NULL,
    name   VARCHAR(190) NOT NULL,
    step   BIGINT       NOT NULL, -- from 0
    digest VARCHAR(64)  NOT NULL, -- of the statement's text
    PRIMARY KEY (app, name, step)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- Of an app one migration is under way at a time, whoever deploys: the row is its turn.
CREATE TABLE IF NOT EXISTS migrating (
    app   VARCHAR(190)  NOT NULL PRIMARY KEY,
    taker VARBINARY(16) NOT NULL, -- random, of the deploy that took the turn
    since BIGINT        NOT NULL
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- What people decided about messages: redriven, resolved, cancelled. `id` is their order.
CREATE TABLE IF NOT EXISTS decisions (
    id       BIGINT      NOT NULL AUTO_INCREMENT PRIMARY KEY,
    seq      BIGINT      NOT NULL,
    at       BIGINT      NOT NULL,
    decision VARCHAR(64) NOT NULL,
    detail   LONGTEXT    NOT NULL,
    INDEX decisions_seq (seq)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- The ledger of outside calls: one row per call and attempt. `intended` is committed before the first byte of the request
-- leaves, so a call that is not here did not happen.
CREATE TABLE IF NOT EXISTS calls (
    id          BIGINT       NOT NULL AUTO_INCREMENT PRIMARY KEY,
    message     VARCHAR(64)  NOT NULL,
    `function`  VARCHAR(190) NOT NULL,
    fence       BIGINT       NOT NULL,
    attempt     BIGINT       NOT NULL,
    ordinal     BIGINT       NOT NULL, -- from 0 within the attempt
    method      LONGTEXT     NOT NULL,
    url         LONGTEXT     NOT NULL, -- without its query, where secrets are
    `key`       LONGTEXT     NOT NULL, -- the Idempotency-Key that was sent
    state       VARCHAR(16)  NOT NULL CHECK (state IN ('intended', 'done', 'failed', 'unknown')),
    status      BIGINT,                -- of the answer
    detail      LONGTEXT,              -- why it failed, or is unknown
    intended_at BIGINT       NOT NULL,
    ended_at    BIGINT,
    INDEX calls_message (message, ordinal),
    INDEX calls_state (state, id)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- How far the schedules of the active versions have come. `key` stands for what a schedule says, so that it goes on in a
-- version that says the same.
CREATE TABLE IF NOT EXISTS cron (
    `function` VARCHAR(190)   NOT NULL,
    `key`      VARBINARY(512) NOT NULL,
    reached    BIGINT         NOT NULL, -- what came up to here is fired, or will never be
    last       BIGINT,                  -- the slot that was fired last
    PRIMARY KEY (`function`, `key`)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- Locks of groups: a group's lock is the row of its bucket, shared by chance with few others. Nothing that a guest can take.
CREATE TABLE IF NOT EXISTS `groups` (bucket BIGINT NOT NULL PRIMARY KEY) ENGINE = InnoDB;
INSERT IGNORE INTO `groups`
    WITH RECURSIVE n (bucket) AS (SELECT 0 UNION ALL SELECT bucket + 1 FROM n WHERE bucket < 999)
    SELECT bucket FROM n;

-- Who sends what functions deferred: the host itself, as a function that nobody deployed (relay.rs). Its version never
-- changes; what it does is a part of the program. No app has this name, so it works as the engine's own login.
INSERT IGNORE INTO components (digest, bytes) VALUES ('built-in', '');
INSERT IGNORE INTO versions (`function`, version, app, digest, manifest, contract, label, created_at)
VALUES ('deferred-http', 1, 'semel', 'built-in', '', 'finish-once', 'external', 0);
INSERT IGNORE INTO functions (name, app, active) VALUES ('deferred-http', 'semel', 1);
INSERT IGNORE INTO subscriptions (topic, `function`) VALUES ('deferred-http', 'deferred-http');

-- One row. `schema` is the number of the last migration. Locked by whoever deploys, so that deploys come one by one. The
-- row is made when all else is there.
CREATE TABLE IF NOT EXISTS store (
    id         BIGINT        NOT NULL PRIMARY KEY CHECK (id = 1),
    `schema`   BIGINT        NOT NULL,
    secret     VARBINARY(32) NOT NULL,
    created_at BIGINT        NOT NULL
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
