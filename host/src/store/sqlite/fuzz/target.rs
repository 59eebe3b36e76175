//! What the fuzzer shoots at: a file with the engine's schema, secrets in it, an app's tables, and a second connection
//! that looks on.

use std::ffi::CString;
use std::time::{Duration, Instant};

use libsqlite3_sys as ffi;

use super::super::connection::{Connection, handle};
use super::super::walls::Wall;
use super::super::{guest_sql, schema, values};
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
    other: rusqlite::Connection,
    engine: String,
    _folder: tempfile::TempDir,
}

impl Target {
    /// A file of its own. Two with different secrets differ in nothing that a guest may see.
    pub(super) fn new(secret: &str, messages: usize) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("fuzz.db");
        let mut connection = Connection::open(&path, AnchoredClock::anchor()).expect("a connection");
        schema::prepare(&mut connection).expect("the engine's schema");
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
        connection.sql.execute_batch(&filled).expect("the fuzzer's own SQL");
        let other = rusqlite::Connection::open(&path).expect("a second connection");
        let mut target = Self { connection, other, engine: String::new(), _folder: folder };
        target.engine = engine(&target.other);
        target
    }

    /// Takes walls down, and forgets what passed while they stood.
    pub(super) fn take_down(&mut self, walls: &[Wall]) {
        self.connection.walls.take_down(walls);
        self.connection.kept.forget();
    }

    /// Whether the second connection sees what it saw in the beginning.
    pub(super) fn is_unchanged(&self) -> bool {
        engine(&self.other) == self.engine
    }

    /// A transaction in which guests' statements run. Ends with `Connection::end_guest`.
    pub(super) fn begin(&mut self) -> Guest<'_> {
        self.connection.begin_guest().expect("a transaction");
        let Self { connection, other, engine, .. } = self;
        let commits = commits(other);
        Guest { connection, other, commits, engine }
    }
}

/// A guest in its transaction.
pub(super) struct Guest<'a> {
    connection: &'a mut Connection,
    other: &'a rusqlite::Connection,
    commits: String,
    engine: &'a str,
}

impl Guest<'_> {
    /// One statement, as `session.rs` runs it.
    pub(super) fn run(&mut self, sql: &str, params: &[Value]) -> Result<Rows, SqlError> {
        let bounds = Bounds { rows: 1000, bytes: 1 << 20, deadline: Instant::now() + Duration::from_millis(100) };
        guest_sql::query(self.connection, sql, params, bounds)
    }

    /// Whether this text would run as it is, without being looked at again.
    pub(super) fn keeps(&self, sql: &str) -> bool {
        self.connection.kept.get(sql).is_some()
    }

    /// Whether the transaction is open; if it is not, the session lets no further statement through.
    pub(super) fn is_open(&self) -> bool {
        self.connection.is_in_transaction()
    }

    /// Whether the second connection notices that somebody has committed.
    pub(super) fn is_visible(&self) -> bool {
        commits(self.other) != self.commits
    }

    /// Whether the engine's rows and the schema are, inside the transaction, what they were.
    pub(super) fn is_unchanged(&self) -> bool {
        engine(&self.connection.sql) == self.engine
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
fn commits(connection: &rusqlite::Connection) -> String {
    rows(connection, "PRAGMA data_version")
}

fn engine(connection: &rusqlite::Connection) -> String {
    ENGINE.iter().map(|sql| rows(connection, sql)).collect()
}

/// What the host reads with this, past all walls.
#[expect(unsafe_code, reason = "SQLite's C interface")]
fn rows(connection: &rusqlite::Connection, sql: &str) -> String {
    let text = CString::new(sql).expect("a text without NUL");
    let mut statement = std::ptr::null_mut();
    let mut found = String::new();
    // SAFETY: the connection is the caller's; the statement is finalized before it ends.
    unsafe {
        let database = handle(connection);
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
