//! The writer's connection: open it with the walls up, ask it something, and begin and end what happens on it.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use libsqlite3_sys as ffi;
use rusqlite::{OpenFlags, OptionalExtension as _, Params, Row};

use super::kept::Kept;
use super::statement::Statement;
use super::walls::{Mode, Walls};
use super::{Error, harden};
use crate::clock::AnchoredClock;

/// Statements of the engine that stay prepared: more than there are.
const STATEMENTS: usize = 128;
/// The oldest SQLite whose WAL is known to be right: 3.51.3.
const OLDEST: i32 = 3_051_003;

pub(super) struct Connection {
    /// Cursors of the guest that is in. Declared before `sql`, as `kept` is: statements end before the connection does.
    pub(super) cursors: HashMap<u32, Statement>,
    /// Guests' statements that were checked and wait to be run again.
    pub(super) kept: Kept,
    pub(super) sql: rusqlite::Connection,
    pub(super) walls: Arc<Walls>,
    pub(super) clock: AnchoredClock,
}

impl Connection {
    /// Opens the file, and makes it if need be.
    pub(super) fn open(path: &Path, clock: AnchoredClock) -> Result<Self, Error> {
        check_version()?;
        // Without SQLite's own mutex: whoever holds a connection has it alone.
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let sql = rusqlite::Connection::open_with_flags(path, flags)?;
        sql.execute_batch("PRAGMA foreign_keys = ON; PRAGMA synchronous = FULL")?;
        sql.set_prepared_statement_cache_capacity(STATEMENTS);
        harden::harden(&sql)?;
        let walls = Walls::raise(&sql)?;
        Ok(Self { cursors: HashMap::new(), kept: Kept::new(), sql, walls, clock })
    }

    /// For what has no interface of rusqlite's.
    pub(super) fn handle(&self) -> *mut ffi::sqlite3 {
        handle(&self.sql)
    }

    /// Runs a statement of the engine. Returns how many rows it changed.
    pub(super) fn execute(&self, sql: &'static str, params: impl Params) -> Result<usize, Error> {
        Ok(self.sql.prepare_cached(sql)?.execute(params)?)
    }

    /// The one row that a statement of the engine returns.
    pub(super) fn one<T>(
        &self,
        sql: &'static str,
        params: impl Params,
        read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<T, Error> {
        Ok(self.sql.prepare_cached(sql)?.query_row(params, read)?)
    }

    /// The row that a statement of the engine returns, if there is one.
    pub(super) fn optional<T>(
        &self,
        sql: &'static str,
        params: impl Params,
        read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Option<T>, Error> {
        Ok(self.sql.prepare_cached(sql)?.query_row(params, read).optional()?)
    }

    /// All rows that a statement of the engine returns.
    pub(super) fn all<T>(
        &self,
        sql: &'static str,
        params: impl Params,
        read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>, Error> {
        let mut statement = self.sql.prepare_cached(sql)?;
        let rows = statement.query_map(params, read)?.collect::<rusqlite::Result<_>>()?;
        Ok(rows)
    }

    /// Runs an engine operation in a transaction of its own: committed if it is ok, else without a trace.
    pub(super) fn transaction<T>(&mut self, operation: impl FnOnce(&mut Self) -> Result<T, Error>) -> Result<T, Error> {
        self.begin()?;
        let done = operation(self).and_then(|value| self.execute("COMMIT", ()).map(|_| value));
        if done.is_err() {
            self.undo();
        }
        done
    }

    /// Opens a transaction, with the database's write lock.
    pub(super) fn begin(&mut self) -> Result<(), Error> {
        self.execute("BEGIN IMMEDIATE", ()).map(drop)
    }

    /// Opens the transaction in which guests write. The commit hook is closed from here on.
    pub(super) fn begin_guest(&mut self) -> Result<(), Error> {
        self.begin_as(|connection, version| {
            if !connection.kept.is_for(version) {
                connection.kept.keep_for(version);
                // SQLite reads it anew when a statement runs, and would plan the guest's first one a second time for that.
                connection.optional("SELECT 1 FROM sqlite_schema LIMIT 1", (), |_| Ok(()))?;
            }
            Ok(true)
        })
        .map(drop)
    }

    /// The same where there is little stack. False, and nothing is open, if the schema is to be read first: SQLite does that by
    /// recursion.
    pub(super) fn begin_guest_lightly(&mut self) -> Result<bool, Error> {
        self.begin_as(|connection, version| Ok(connection.kept.is_for(version)))
    }

    /// Nobody else changes the schema of this version while the transaction is open.
    fn begin_as(&mut self, may: impl FnOnce(&mut Self, i64) -> Result<bool, Error>) -> Result<bool, Error> {
        self.begin()?;
        let version = self.one("PRAGMA schema_version", (), |row| row.get(0));
        let may = version.and_then(|version| may(self, version));
        if matches!(may, Ok(true)) {
            self.walls.set_guest_in(true);
        } else {
            self.undo();
        }
        may
    }

    /// After a guest, whatever it did: nothing of it is left that was not committed.
    pub(super) fn end_guest(&mut self) {
        self.take_over();
        self.walls.set_mode(Mode::Host);
        self.walls.set_deadline(None);
        self.walls.set_claim(None);
        self.undo();
    }

    /// Ends the guest's part and opens the commit hook, with the transaction still open.
    pub(super) fn take_over(&mut self) {
        self.cursors.clear();
        self.walls.set_guest_in(false);
    }

    /// Whether a transaction is open.
    pub(super) fn is_in_transaction(&self) -> bool {
        !self.sql.is_autocommit()
    }

    /// Rolls back if a transaction is open.
    fn undo(&mut self) {
        if self.is_in_transaction()
            && let Err(error) = self.execute("ROLLBACK", ())
        {
            // Whatever came next would run inside this transaction. A new host starts from what is committed.
            tracing::error!(%error, "could not roll back; this process ends");
            std::process::abort();
        }
    }
}

/// For what has no interface of rusqlite's.
#[expect(unsafe_code, reason = "SQLite's C interface")]
pub(super) fn handle(sql: &rusqlite::Connection) -> *mut ffi::sqlite3 {
    // SAFETY: the pointer is used by whoever holds the connection, while he holds it, and never to close it.
    unsafe { sql.handle() }
}

fn check_version() -> Result<(), Error> {
    if rusqlite::version_number() >= OLDEST {
        return Ok(());
    }
    Err(Error::Refused(format!(
        "SQLite {} is too old: its write-ahead log can lose commits; Semel needs {}.{}.{} or newer",
        rusqlite::version(),
        OLDEST / 1_000_000,
        OLDEST / 1000 % 1000,
        OLDEST % 1000,
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opened(folder: &tempfile::TempDir) -> Connection {
        Connection::open(&folder.path().join("test.db"), AnchoredClock::anchor()).expect("a connection")
    }

    fn rows(connection: &rusqlite::Connection, sql: &str) -> i64 {
        connection.query_row(sql, (), |row| row.get(0)).expect("a count")
    }

    /// Wall: the commit hook. Behind gate and authorizer nothing should come here; if it does, it commits nothing.
    #[test]
    fn nothing_commits_while_a_guest_is_in() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut connection = opened(&folder);
        connection.sql.execute_batch("CREATE TABLE t (a)").expect("a table");
        connection.begin_guest().expect("a transaction");
        connection.sql.execute_batch("INSERT INTO t VALUES (1)").expect("an insert");
        assert!(connection.sql.execute_batch("COMMIT").is_err(), "the transaction was committed");
        assert!(connection.sql.execute_batch("INSERT INTO t VALUES (2)").is_err(), "a statement committed by itself");
        connection.end_guest();
        let other = rusqlite::Connection::open(folder.path().join("test.db")).expect("a second connection");
        assert_eq!(rows(&other, "SELECT count(*) FROM t"), 0);
        connection.begin_guest().expect("a transaction");
        connection.sql.execute_batch("INSERT INTO t VALUES (3)").expect("an insert");
        connection.take_over();
        connection.sql.execute_batch("COMMIT").expect("the host itself commits");
        assert_eq!(rows(&other, "SELECT count(*) FROM t"), 1);
    }

    /// Wall: the authorizer in host mode. A trigger of an app that is in the file, however it came there, does not run
    /// with the engine's rights.
    #[test]
    fn the_engine_runs_no_trigger() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let other = rusqlite::Connection::open(folder.path().join("test.db")).expect("a connection without walls");
        let thief = "CREATE TABLE t (a); CREATE TABLE stolen (a);
                     CREATE TRIGGER thief AFTER INSERT ON t BEGIN INSERT INTO stolen VALUES (new.a); END";
        other.execute_batch(thief).expect("a trigger");
        let connection = opened(&folder);
        assert!(connection.sql.execute_batch("INSERT INTO t VALUES (1)").is_err(), "the trigger ran");
        assert_eq!(rows(&other, "SELECT count(*) FROM stolen"), 0);
    }
}
