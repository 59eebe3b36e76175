-- Semel on Postgres: the engine's tables (schema `semel`) and what keeps groups in order. 0002_api.sql holds what the
-- logins of apps may call, app_role.sql makes those logins, app_schema.sql and app_grants.sql say what they may,
-- lockdown.sql is for superusers.
--
-- Run by the engine's login in one transaction. It owns the database, may create roles, and is no superuser. The same
-- tables and columns as on SQLite without the prefix `semel_`; every number is a bigint, every time microseconds since
-- 1970 by this server's clock. What differs: no `epoch` (a host's death is known by its lease alone); `store.schema`
-- instead of SQLite's user_version; `versions.app`, since one database holds many apps; a removed function's row stays
-- for ever, so that what arrives late is still found and swept.
--
-- SESSIONS. The engine's: READ COMMITTED, synchronous_commit = on, enable_seqscan = off, enable_hashjoin = off,
-- enable_mergejoin = off (the statistics of a queue are always wrong), plan_cache_mode = force_custom_plan, jit = off
-- (a plan that is forbidden has a huge cost, for which the server would compile it), lock_timeout 5 s,
-- idle_in_transaction_session_timeout 5 s (a host that stands still in a transaction must let go of its rows). The four
-- from enable_seqscan on are not for what people ask (counts, messages).
-- An app's: BEGIN ISOLATION LEVEL READ COMMITTED, said each time, since a guest may have changed the default; then
-- SET LOCAL idle_in_transaction_session_timeout = the lease, which ends what a frozen host left open.
--
-- LOCKS, always taken in this order, so that nobody waits in a circle:
--   1. `store` (deploy, activate, remove)   2. an idempotency key   3. groups, sorted (semel.lock_groups)
--   4. `functions` (a claim's limits, SKIP LOCKED)   5. rows of `queue`, by seq   6. `history`, `attempts`, the rest.
-- A change to a grouped message takes the lock of its group first; claim, promote, heartbeat, begin and resolve take no
-- group's lock: the first three skip rows that are locked. Whoever holds a group's lock waits for a row at most as long
-- as a claim or an acknowledgement takes that came before; recover, sweep and forget skip rows that are locked.
--
-- TRANSACTIONS (files in host/src/store/postgres; [ ] only with a group; one line is one transaction)
--   open       schema_find; not there: the migrations and install in one (42P06 or 23505: another host was faster, look
--              again); else schema_version, further migrations, schema_advance
--   enqueue    any number of events: target, subscribers; key_remember, in the order of the keys (not all: key_find; not
--              active: key_retake); a full backlog: key_return; [group_lock]; enqueue; [group_order]
--   claim      promote, alone.  claim, alone.  For lanes with a rate or a limit over all hosts: rate_read (lanes that
--              it does not return are being claimed by another host: leave them out); claim; rate_write
--   begin, heartbeat, suspects, pause: one statement each.  Wake-ups (NOTIFY) come after the commit, in a transaction of
--              their own, and are only hints
--   recover    recover_find (nothing: done); recover_groups; recover_lock; recover_attempts; recover_end; recover_free;
--              [group_order].  For each group that recover_groups did not get, another one: SET LOCAL lock_timeout = 1 s;
--              group_lock of that group alone; then the same (55P03: the next)
--   settle     [group_lock]; retry or bury; attempt (after the row, as recovery does); [group_order]; commit in any case
--   resolve    SET LOCAL lock_timeout; resolve_wait (55P03: terminate the old session's backend, again); resolve
--   run        app's session: semel_api.enter; SAVEPOINT canary; the guest; RELEASE canary; semel_api.ack;
--              SET CONSTRAINTS ALL IMMEDIATE; SET LOCAL synchronous_commit = on; COMMIT.  Several claims: enter each before
--              its run, and all acknowledgements together at the end, by seq
--   redrive    standing; [group_lock]; redrive (no row: read standing again); [group_order]; decide
--   resolve_doubt  standing; resolve_doubt; decide
--   cancel     standing; [group_lock]; cancel (no row: read standing again); [group_order]; decide
--   sweep      sweep_find; [group_lock]; sweep_bury; [group_order] (the function may come back before its last message went)
--   forget     forget_find, alone; forget_history; forget_active_keys; forget_outlived; forget_attempts; forget_decisions;
--              forget_messages.  forget_keys, alone
--   deploy     deploy_lock; app_migration_find …; (migrations: 0002_api.sql, semel_api.migrated); deploy_same;
--              deploy_component; deploy_version; deploy_serial_was (if it changes: groups_lock_all); deploy_activate; (if it
--              changes: deploy_serial or deploy_parallel); deploy_unsubscribe; deploy_subscribe.
--              remove: deploy_lock; remove; deploy_unsubscribe
--
-- SQLSTATEs: SM001 enter: stale or foreign claim (Fenced). SM002 ack: the claim no longer holds (Fenced). SM003 a commit
-- without its acknowledgement. SM004 a call from a transaction that did not enter, or with another token. SM005 claims of
-- two versions in one transaction. Try again: 40P01 deadlock, 55P03 lock timeout, 40001, 57014 cancelled, 57P01 to 57P03,
-- class 08, 53.

CREATE SCHEMA semel;
REVOKE ALL ON SCHEMA semel FROM PUBLIC;
ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;

-- The store's clock: not the transaction's start, which may be long ago.
CREATE FUNCTION semel.now() RETURNS bigint LANGUAGE sql VOLATILE
    RETURN (extract(epoch FROM pg_catalog.clock_timestamp()) * 1000000)::bigint;

-- One row. `schema` is the number of the last migration. Locked by whoever deploys, so that deploys come one by one.
CREATE TABLE semel.store (
    id         bigint PRIMARY KEY CHECK (id = 1),
    schema     bigint NOT NULL,
    secret     bytea  NOT NULL,
    created_at bigint NOT NULL
);

-- Messages as they were accepted. Never updated; `seq` is the order of acceptance.
-- No foreign keys lead here: each would lock, and so write, the message's row at every step of its life.
CREATE TABLE semel.messages (
    seq          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id           text   NOT NULL UNIQUE,
    event        text   NOT NULL,
    function     text   NOT NULL,
    topic        text   NOT NULL,
    group_key    text,
    content_type text,
    headers      text   NOT NULL, -- JSON: [[name, value], …]
    body         bytea  NOT NULL,
    priority     bigint NOT NULL,
    accepted_at  bigint NOT NULL,
    due_at       bigint NOT NULL
);

-- What is waiting or running, and nothing else: a message leaves this table with its acknowledgement. `lease_until` and
-- `begun_at` are in no index, so heartbeats and begins stay on their page, for which each page keeps room. Dead rows cost
-- every claim: vacuum early, and without a rest.
CREATE TABLE semel.queue (
    seq             bigint  PRIMARY KEY,
    function        text    NOT NULL,
    group_key       text,
    state           text    NOT NULL CHECK (state IN ('available', 'running')),
    priority        bigint  NOT NULL,
    available_at    bigint  NOT NULL,
    due             boolean NOT NULL,               -- false: `available_at` had not come when somebody last looked
    blocked         boolean NOT NULL DEFAULT false, -- an earlier message of its group is in the queue; never `due`
    suspect         boolean NOT NULL DEFAULT false, -- the last claim ended without a record; runs alone
    attempt         bigint  NOT NULL DEFAULT 0,
    attempts_before bigint  NOT NULL DEFAULT 0,     -- before the last redrive: they do not count against the limit
    fence           bigint  NOT NULL DEFAULT 0,
    token_hash      bytea,
    host            text,
    version         bigint,
    contract        text,
    max_attempts    bigint,
    claimed_at      bigint,
    lease_until     bigint,
    begun_at        bigint,
    error_kind      text,
    error_message   text,
    CHECK (NOT (blocked AND due)),
    CHECK (NOT (blocked AND state = 'running'))
) WITH (
    fillfactor = 70,
    autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_cost_delay = 0,
    autovacuum_analyze_scale_factor = 0, autovacuum_analyze_threshold = 20000
);
CREATE INDEX queue_claim ON semel.queue (function, suspect, priority DESC, available_at, seq) WHERE state = 'available' AND due;
CREATE INDEX queue_delayed ON semel.queue (available_at) WHERE NOT due AND NOT blocked;
CREATE INDEX queue_function ON semel.queue (function, state); -- backlog, limits over all hosts, recovery
CREATE INDEX queue_suspect ON semel.queue (function) WHERE suspect AND state = 'available';
CREATE INDEX queue_group ON semel.queue (function, group_key, seq) WHERE group_key IS NOT NULL;
CREATE INDEX queue_blocked ON semel.queue (function, group_key) WHERE blocked; -- of a function without order: nothing
CREATE INDEX queue_head ON semel.queue (function, group_key, state) WHERE NOT blocked AND group_key IS NOT NULL;

-- Where messages end: completed, dead, in-doubt or cancelled.
CREATE TABLE semel.history (
    seq                 bigint  PRIMARY KEY,
    function            text    NOT NULL,
    state               text    NOT NULL CHECK (state IN ('completed', 'dead', 'in-doubt', 'cancelled')),
    attempt             bigint  NOT NULL,
    attempts_before     bigint  NOT NULL DEFAULT 0,
    fence               bigint  NOT NULL,
    version             bigint,
    available_at        bigint  NOT NULL,
    ended_at            bigint  NOT NULL,
    error_kind          text,
    error_message       text,
    answered            boolean NOT NULL DEFAULT false,
    answer_content_type text,
    answer_headers      text,
    answer_body         bytea
) WITH (autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_insert_scale_factor = 0.05);
CREATE INDEX history_state ON semel.history (function, state, seq) INCLUDE (attempt);
CREATE INDEX history_ended ON semel.history (state, ended_at);

-- One row per claim that ended, written at its settlement (or by whoever found that it was lost).
CREATE TABLE semel.attempts (
    seq          bigint NOT NULL,
    fence        bigint NOT NULL,
    attempt      bigint NOT NULL,
    function     text   NOT NULL,
    version      bigint NOT NULL,
    host         text   NOT NULL,
    claimed_at   bigint NOT NULL,
    started_at   bigint,
    ended_at     bigint,
    outcome      text   NOT NULL,
    error        text,
    fuel         bigint,
    statements   bigint NOT NULL DEFAULT 0,
    sql_micros   bigint NOT NULL DEFAULT 0,
    published    bigint NOT NULL DEFAULT 0,
    logs         text   NOT NULL DEFAULT '[]', -- JSON: [{at, level, message, fields}, …]
    logs_dropped bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (seq, fence)
);
CREATE INDEX attempts_lost_lease ON semel.attempts (function) WHERE outcome = 'lost-lease';

-- Idempotency keys, apart from messages, so that each is kept as long as it is needed.
CREATE TABLE semel.keys (
    function     text    NOT NULL,
    key          text    NOT NULL,
    fingerprint  bytea   NOT NULL,
    message      text    NOT NULL,
    expires_at   bigint,                         -- NULL: never
    while_active boolean NOT NULL DEFAULT false, -- the key is free again when its message is settled
    ended_as     text,                           -- how its message ended, once that is forgotten
    PRIMARY KEY (function, key)
);
CREATE INDEX keys_message ON semel.keys (message);
CREATE INDEX keys_expiry ON semel.keys (expires_at) WHERE expires_at IS NOT NULL;

-- The key-value store of guests; keys in byte order.
CREATE TABLE semel.state (
    namespace text NOT NULL,
    key       text COLLATE "C" NOT NULL CHECK (octet_length(key) BETWEEN 1 AND 512),
    value     bytea NOT NULL CHECK (octet_length(value) <= 1048576),
    PRIMARY KEY (namespace, key)
) WITH (fillfactor = 80);

CREATE TABLE semel.components (
    digest text PRIMARY KEY,
    bytes  bytea NOT NULL
);

-- The roles of each app: whose session its guests have, who owns its schema (NULL: somebody whom no host knows). No row
-- where guests run as the engine.
CREATE TABLE semel.apps (
    app   text PRIMARY KEY,
    login text NOT NULL UNIQUE,
    owner text UNIQUE
);

CREATE TABLE semel.versions (
    function   text   NOT NULL,
    version    bigint NOT NULL,
    app        text   NOT NULL, -- whose login runs it
    digest     text   NOT NULL REFERENCES semel.components (digest),
    manifest   text   NOT NULL,
    contract   text   NOT NULL,
    label      text   NOT NULL,
    created_at bigint NOT NULL,
    previous   bigint,          -- the version that was active when this one was deployed: where a rollback leads
    PRIMARY KEY (function, version)
);

CREATE TABLE semel.functions (
    name    text    PRIMARY KEY,
    app     text    NOT NULL,
    active  bigint  NOT NULL,
    paused  boolean NOT NULL DEFAULT false,
    removed boolean NOT NULL DEFAULT false,
    serial  boolean NOT NULL DEFAULT false, -- messages of one group run in order
    backlog bigint,                         -- most messages in the queue; NULL: no limit
    rate_at bigint  NOT NULL DEFAULT 0      -- the rate limit's place in time
) WITH (fillfactor = 50);

CREATE TABLE semel.subscriptions (
    topic    text NOT NULL,
    function text NOT NULL,
    PRIMARY KEY (topic, function)
);

-- App migrations that were applied, so that each is applied once and a changed one is noticed.
CREATE TABLE semel.app_migrations (
    app        text   NOT NULL,
    name       text   NOT NULL,
    function   text   NOT NULL, -- whose deploy applied it
    checksum   text   NOT NULL,
    applied_at bigint NOT NULL,
    PRIMARY KEY (app, name)
);

-- What people decided about messages: redriven, resolved, cancelled. `id` is their order.
CREATE TABLE semel.decisions (
    id       bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    seq      bigint NOT NULL,
    at       bigint NOT NULL,
    decision text   NOT NULL,
    detail   text   NOT NULL
);
CREATE INDEX decisions_seq ON semel.decisions (seq);

-- Locks of groups: a group's lock is the row of its bucket, shared by chance with few others. No rows to make or to clear
-- away, and unlike an advisory lock nothing that a guest can take.
CREATE TABLE semel.groups (bucket bigint PRIMARY KEY);
INSERT INTO semel.groups SELECT generate_series(0, 1023);

CREATE FUNCTION semel.bucket(p_function text, p_group text) RETURNS bigint LANGUAGE sql IMMUTABLE
    RETURN pg_catalog.hashtextextended(p_function || '/' || p_group, 0) & 1023;

-- Locks groups (one array each for function and group key; a group that is NULL is left out) until the end of the
-- transaction, in the order of their buckets. Before the rows, see the top.
CREATE FUNCTION semel.lock_groups(p_functions text[], p_groups text[]) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM 1 FROM semel.groups
    WHERE bucket = ANY (ARRAY(SELECT semel.bucket(f, g) FROM unnest(p_functions, p_groups) AS t (f, g) WHERE g IS NOT NULL))
    ORDER BY bucket FOR UPDATE;
END
$$;

-- Puts one group in order, under its lock and after its rows were changed. Of a serial function at most one message of a
-- group is not blocked: the first, unless a later one had begun to run or is being claimed at this moment. Statements of
-- their own, so that each sees what was committed before it.
CREATE FUNCTION semel.order_group(p_function text, p_group text) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
DECLARE
    v_first bigint;
BEGIN
    IF NOT EXISTS (SELECT FROM semel.functions WHERE name = p_function AND serial) THEN
        UPDATE semel.queue SET blocked = false, due = available_at <= semel.now()
        WHERE function = p_function AND group_key = p_group AND blocked;
        RETURN;
    END IF;
    -- Rows are compared since min(seq) of the group may become a walk over the primary key, from message to message until
    -- one of the group comes: cheap by the statistics of a group that was long, and the whole queue once it is short.
    SELECT e.seq INTO v_first FROM (
        SELECT function, group_key, seq FROM semel.queue
        WHERE (function, group_key, seq) >= (p_function, p_group, 0) AND group_key IS NOT NULL
        ORDER BY function, group_key, seq LIMIT 1
    ) AS e
    WHERE e.function = p_function AND e.group_key = p_group;
    -- Who stands at the head and is not the first has to wait again (the first one came back). One that is being claimed
    -- is locked: it keeps its place, and the first waits for its end.
    UPDATE semel.queue SET blocked = true, due = false
    WHERE seq = ANY (ARRAY(
        SELECT q.seq FROM semel.queue q
        WHERE q.function = p_function AND q.group_key = p_group AND NOT q.blocked AND q.state = 'available'
          AND (q.seq > v_first
               OR EXISTS (SELECT FROM semel.queue e WHERE e.function = p_function AND e.group_key = p_group
                          AND NOT e.blocked AND e.state = 'running'))
        FOR NO KEY UPDATE SKIP LOCKED
    ));
    UPDATE semel.queue SET blocked = false, due = available_at <= semel.now()
    WHERE seq = v_first AND blocked
      AND NOT EXISTS (SELECT FROM semel.queue e WHERE e.function = p_function AND e.group_key = p_group AND NOT e.blocked);
END
$$;

-- The same for several groups; one that is NULL is left out.
CREATE FUNCTION semel.order_groups(p_functions text[], p_groups text[]) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM semel.order_group(f, g)
    FROM (SELECT DISTINCT f, g FROM unnest(p_functions, p_groups) AS t (f, g) WHERE g IS NOT NULL) AS t;
END
$$;

-- Messages and their places in the queue, one per element of the arrays; `p_delays` in microseconds. One with a group of a
-- serial function is blocked until order_group says otherwise, which has to follow in the same transaction.
CREATE FUNCTION semel.enqueue(
    p_ids text[], p_events text[], p_functions text[], p_topics text[], p_groups text[], p_content_types text[],
    p_headers text[], p_bodies bytea[], p_priorities bigint[], p_delays bigint[]
) RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
DECLARE
    v_now bigint := semel.now();
BEGIN
    WITH message AS (
        INSERT INTO semel.messages
            (id, event, function, topic, group_key, content_type, headers, body, priority, accepted_at, due_at)
        SELECT id, event, function, topic, group_key, content_type, headers, body, priority, v_now, v_now + delay
        FROM unnest(p_ids, p_events, p_functions, p_topics, p_groups, p_content_types, p_headers, p_bodies, p_priorities,
                    p_delays) WITH ORDINALITY
             AS t (id, event, function, topic, group_key, content_type, headers, body, priority, delay, place)
        ORDER BY place
        RETURNING seq, function, group_key, priority, due_at
    )
    INSERT INTO semel.queue (seq, function, group_key, state, priority, available_at, blocked, due)
    SELECT m.seq, m.function, m.group_key, 'available', m.priority, m.due_at, waits.blocked,
           m.due_at <= v_now AND NOT waits.blocked
    FROM message m, LATERAL (
        SELECT m.group_key IS NOT NULL AND EXISTS (SELECT FROM semel.functions f WHERE f.name = m.function AND f.serial)
    ) AS waits (blocked);
END
$$;
