//! What the fuzzer shoots at: a file with the engine's schema, secrets in it, an app's tables, and a second connection
//! that looks on.

use std::ffi::CString;
use std::time::{Duration, Instant};

use libsqlite3_sys as ffi;
use sqlx::sqlite::{LockedSqliteHandle, SqliteConnection};
use sqlx::{AssertSqlSafe, ConnectOptions};

use super::super::connection::Connection;
use super::super::walls::Walls;
use super::super::{guest_sql, options, options_for_reading, schema, values};
use crate::clock::AnchoredClock;
use crate::store::{Bounds, Rows, SqlError, Value};

const APP: &str = include_str!("app.sql");
/// A schema, and after it statements, one a line.
pub(super) const CORPUS: &str = include_str!("corpus.sql");
/// Begins every secret.
const CANARY: &str = "canary";
/// What a second connection must never see change, and a guest must never change.
const ENGINE: [&str; 15] = [
    "SELECT type, name, tbl_name, rootpage, sql FROM sqlite_schema",
    "SELECT * FROM sqlite_sequence WHERE name LIKE 'semel%'",
    "SELECT * FROM semel_store",
    "SELECT * FROM semel_messages",
    "SELECT * FROM semel_queue",
    "SELECT * FROM semel_history",
    "SELECT * FROM semel_attempts",
    "SELECT * FROM semel_keys",
    "SELECT * FROM semel_state",
    "SELECT * FROM semel_components",
    "SELECT * FROM semel_versions",
    "SELECT * FROM semel_functions",
    "SELECT * FROM semel_subscriptions",
    "SELECT * FROM semel_app_migrations",
    "SELECT * FROM semel_decisions",
];

pub(super) struct Target {
    pub(super) connection: Connection,
    other: SqliteConnection,
    engine: String,
    _folder: tempfile::TempDir,
}

impl Target {
    /// A file of its own. Two with different secrets differ in nothing that a guest may see.
    pub(super) async fn new(secret: &str, messages: usize) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("fuzz.db");
        let make = options(&path).create_if_missing(true);
        let mut connection = Connection::open(make, AnchoredClock::anchor()).await.expect("a connection");
        schema::prepare(&mut connection).await.expect("the engine's schema");
        let secret = format!("{CANARY}-{secret}");
        let hidden = format!(
            "UPDATE semel_store SET secret = CAST('{secret}' AS BLOB);
             INSERT INTO semel_state VALUES ('other', '{secret}', CAST('{secret}' AS BLOB));
             INSERT INTO semel_keys (function, key, fingerprint, message) VALUES ('other', '{secret}', x'00', '{secret}');
             INSERT INTO semel_decisions VALUES (1, 0, '{secret}', '{secret}');
             INSERT INTO semel_functions (name, app, active) VALUES ('{secret}', '{secret}', 1);
             INSERT INTO semel_components VALUES ('{secret}', CAST('{secret}' AS BLOB));"
        );
        let message = |number| {
            format!(
                "INSERT INTO semel_messages (id, event, function, topic, headers, body, priority, accepted_at, due_at)
                 VALUES ('{secret}-{number}', '{secret}', 'other', '', '[]', CAST('{secret}' AS BLOB), 0, 0, 0);
                 INSERT INTO semel_queue (seq, function, state, priority, available_at, due, token_hash)
                 VALUES (last_insert_rowid(), 'other', 'running', 0, 0, 1, CAST('{secret}' AS BLOB));"
            )
        };
        let filled = (0..messages).map(message).collect::<String>() + &hidden + APP;
        sqlx::raw_sql(AssertSqlSafe(filled)).execute(&mut connection.sql).await.expect("the fuzzer's own SQL");
        let other = options_for_reading(&path).connect().await.expect("a second connection");
        let mut target = Self { connection, other, engine: String::new(), _folder: folder };
        target.engine = target.seen().await;
        target
    }

    /// All of the engine's, as the second connection sees it.
    async fn seen(&mut self) -> String {
        engine(&mut self.other.lock_handle().await.expect("a second connection"))
    }

    /// Whether the second connection sees what it saw in the beginning.
    pub(super) async fn is_unchanged(&mut self) -> bool {
        self.seen().await == self.engine
    }

    /// A transaction in which guests' statements run. Ends with `Connection::end_guest`.
    pub(super) async fn begin(&mut self) -> Guest<'_> {
        self.connection.begin_guest().await.expect("a transaction");
        let Self { connection: Connection { sql, walls, .. }, other, engine, .. } = self;
        let mut other = other.lock_handle().await.expect("a second connection");
        let commits = commits(&mut other);
        Guest { handle: sql.lock_handle().await.expect("a connection"), walls, other, commits, engine }
    }
}

/// A guest in its transaction.
pub(super) struct Guest<'a> {
    handle: LockedSqliteHandle<'a>,
    walls: &'a Walls,
    other: LockedSqliteHandle<'a>,
    commits: String,
    engine: &'a str,
}

impl Guest<'_> {
    /// One statement, as `session.rs` runs it.
    pub(super) fn run(&mut self, sql: &str, params: &[Value]) -> Result<Rows, SqlError> {
        let bounds = Bounds { rows: 1000, bytes: 1 << 20, deadline: Instant::now() + Duration::from_millis(100) };
        let mut statement = guest_sql::prepare(&mut self.handle, self.walls, sql, params, bounds.deadline)?;
        guest_sql::step(&mut self.handle, self.walls, &mut statement, bounds, false)
    }

    /// Whether the transaction is open; if it is not, the session lets no further statement through.
    pub(super) fn is_open(&mut self) -> bool {
        guest_sql::in_transaction(&mut self.handle)
    }

    /// Whether the second connection notices that somebody has committed.
    pub(super) fn is_visible(&mut self) -> bool {
        commits(&mut self.other) != self.commits
    }

    /// Whether the engine's rows and the schema are, inside the transaction, what they were.
    pub(super) fn is_unchanged(&mut self) -> bool {
        engine(&mut self.handle) == self.engine
    }
}

/// Whether a secret is in a row, as it is, in other letters or in hexadecimal digits.
pub(super) fn is_secret(rows: &Rows) -> bool {
    let hidden = hex::encode(CANARY);
    let holds = |bytes: &[u8]| {
        let text = bytes.to_ascii_lowercase();
        [CANARY, &hidden].iter().any(|canary| memchr::memmem::find(&text, canary.as_bytes()).is_some())
    };
    rows.rows.iter().flatten().any(|value| match value {
        Value::Text(text) => holds(text.as_bytes()),
        Value::Bytes(bytes) => holds(bytes),
        _ => false,
    })
}

/// Changes whenever anybody else commits.
fn commits(handle: &mut LockedSqliteHandle<'_>) -> String {
    rows(handle, "PRAGMA data_version")
}

fn engine(handle: &mut LockedSqliteHandle<'_>) -> String {
    ENGINE.iter().map(|sql| rows(handle, sql)).collect()
}

/// What the host reads with this, past all walls.
#[expect(unsafe_code, reason = "SQLite's C interface")]
fn rows(handle: &mut LockedSqliteHandle<'_>, sql: &str) -> String {
    let text = CString::new(sql).expect("a text without NUL");
    let mut statement = std::ptr::null_mut();
    let mut found = String::new();
    // SAFETY: the handle is locked; the statement is finalized before the handle is let go.
    unsafe {
        let database = handle.as_raw_handle().as_ptr();
        let code = ffi::sqlite3_prepare_v2(database, text.as_ptr(), -1, &raw mut statement, std::ptr::null_mut());
        assert_eq!(code, ffi::SQLITE_OK, "{sql}");
        let columns = usize::try_from(ffi::sqlite3_column_count(statement)).expect("columns");
        while ffi::sqlite3_step(statement) == ffi::SQLITE_ROW {
            found.push_str(&format!("{:?}\n", values::row(statement, columns)));
        }
        ffi::sqlite3_finalize(statement);
    }
    found
}
