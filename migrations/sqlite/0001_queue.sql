-- The engine's tables. All begin with `semel_`; everything else in the file belongs to the app.

-- One row. `epoch` grows whenever a host opens the file: claims of an older epoch are free at once.
CREATE TABLE semel_store (
    id         INTEGER PRIMARY KEY CHECK (id = 1),
    epoch      INTEGER NOT NULL,
    secret     BLOB    NOT NULL,
    created_at INTEGER NOT NULL
);

-- Messages as they were accepted. Never updated; `seq` is the order of acceptance.
CREATE TABLE semel_messages (
    seq          INTEGER PRIMARY KEY AUTOINCREMENT,
    id           TEXT    NOT NULL UNIQUE,
    event        TEXT    NOT NULL,
    function     TEXT    NOT NULL,
    topic        TEXT    NOT NULL,
    group_key    TEXT,
    content_type TEXT,
    headers      TEXT    NOT NULL, -- JSON: [[name, value], …]
    body         BLOB    NOT NULL,
    priority     INTEGER NOT NULL,
    accepted_at  INTEGER NOT NULL,
    due_at       INTEGER NOT NULL
);

-- What is waiting or running, and nothing else: a message leaves this table with its acknowledgement.
CREATE TABLE semel_queue (
    seq           INTEGER PRIMARY KEY REFERENCES semel_messages (seq),
    function      TEXT    NOT NULL,
    state         TEXT    NOT NULL CHECK (state IN ('available', 'running')),
    priority      INTEGER NOT NULL,
    available_at  INTEGER NOT NULL,
    due           INTEGER NOT NULL,           -- 0: `available_at` had not come when somebody last looked
    suspect       INTEGER NOT NULL DEFAULT 0, -- 1: the last claim ended without a record; runs alone
    attempt       INTEGER NOT NULL DEFAULT 0,
    fence         INTEGER NOT NULL DEFAULT 0,
    token_hash    BLOB,
    epoch         INTEGER,
    host          TEXT,
    version       INTEGER,
    contract      TEXT,
    max_attempts  INTEGER,
    claimed_at    INTEGER,
    lease_until   INTEGER,
    begun_at      INTEGER,
    error_kind    TEXT,
    error_message TEXT
);
CREATE INDEX semel_queue_claim ON semel_queue (function, state, suspect, due, priority DESC, available_at, seq);
CREATE INDEX semel_queue_delayed ON semel_queue (available_at) WHERE due = 0;
CREATE INDEX semel_queue_running ON semel_queue (lease_until) WHERE state = 'running';
CREATE INDEX semel_queue_suspect ON semel_queue (seq) WHERE suspect = 1 AND state = 'available';

-- Where messages end: completed, dead, in-doubt or cancelled.
CREATE TABLE semel_history (
    seq                 INTEGER PRIMARY KEY REFERENCES semel_messages (seq),
    function            TEXT    NOT NULL,
    state               TEXT    NOT NULL CHECK (state IN ('completed', 'dead', 'in-doubt', 'cancelled')),
    attempt             INTEGER NOT NULL,
    fence               INTEGER NOT NULL,
    version             INTEGER,
    available_at        INTEGER NOT NULL,
    ended_at            INTEGER NOT NULL,
    error_kind          TEXT,
    error_message       TEXT,
    answered            INTEGER NOT NULL DEFAULT 0,
    answer_content_type TEXT,
    answer_headers      TEXT,
    answer_body         BLOB
);
CREATE INDEX semel_history_state ON semel_history (function, state, attempt);

-- One row per claim that ended, written at its settlement (or by whoever found that it was lost).
CREATE TABLE semel_attempts (
    seq          INTEGER NOT NULL,
    fence        INTEGER NOT NULL,
    attempt      INTEGER NOT NULL,
    function     TEXT    NOT NULL,
    version      INTEGER NOT NULL,
    host         TEXT    NOT NULL,
    claimed_at   INTEGER NOT NULL,
    started_at   INTEGER,
    ended_at     INTEGER,
    outcome      TEXT    NOT NULL,
    error        TEXT,
    fuel         INTEGER,
    statements   INTEGER NOT NULL DEFAULT 0,
    sql_micros   INTEGER NOT NULL DEFAULT 0,
    published    INTEGER NOT NULL DEFAULT 0,
    logs         TEXT    NOT NULL DEFAULT '[]', -- JSON: [{at, level, message, fields}, …]
    logs_dropped INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (seq, fence)
) WITHOUT ROWID;
CREATE INDEX semel_attempts_lost_lease ON semel_attempts (function) WHERE outcome = 'lost-lease';

-- Idempotency keys, apart from messages, so that each is kept as long as it is needed.
CREATE TABLE semel_keys (
    function    TEXT NOT NULL,
    key         TEXT NOT NULL,
    fingerprint BLOB NOT NULL,
    message     TEXT NOT NULL,
    expires_at  INTEGER, -- NULL: never
    PRIMARY KEY (function, key)
) WITHOUT ROWID;

-- The key-value store of guests.
CREATE TABLE semel_state (
    namespace TEXT NOT NULL,
    key       TEXT NOT NULL,
    value     BLOB NOT NULL,
    PRIMARY KEY (namespace, key)
) WITHOUT ROWID;

CREATE TABLE semel_components (
    digest TEXT PRIMARY KEY,
    bytes  BLOB NOT NULL
);

CREATE TABLE semel_versions (
    function   TEXT    NOT NULL,
    version    INTEGER NOT NULL,
    digest     TEXT    NOT NULL REFERENCES semel_components (digest),
    manifest   TEXT    NOT NULL,
    contract   TEXT    NOT NULL,
    label      TEXT    NOT NULL,
    created_at INTEGER NOT NULL,
    PRIMARY KEY (function, version)
);

CREATE TABLE semel_functions (
    name   TEXT PRIMARY KEY,
    app    TEXT    NOT NULL,
    active INTEGER NOT NULL
);

CREATE TABLE semel_subscriptions (
    topic    TEXT NOT NULL,
    function TEXT NOT NULL,
    PRIMARY KEY (topic, function)
) WITHOUT ROWID;

-- App migrations that were applied, so that each is applied once and a changed one is noticed.
CREATE TABLE semel_app_migrations (
    app        TEXT    NOT NULL,
    name       TEXT    NOT NULL,
    function   TEXT    NOT NULL, -- whose deploy applied it
    checksum   TEXT    NOT NULL,
    applied_at INTEGER NOT NULL,
    PRIMARY KEY (app, name)
);
