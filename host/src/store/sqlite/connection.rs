//! The writer's connection: open it with the walls up, and begin and end what happens on it.

use std::collections::HashMap;
use std::sync::Arc;

use futures_util::future::LocalBoxFuture;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions, Executor, Row};

use super::guest_sql::{self, Statement};
use super::walls::{Mode, Walls};
use super::{Error, OLDEST, classify};
use crate::clock::AnchoredClock;
use crate::store::SqlError;

pub(super) struct Connection {
    /// Cursors of the guest that is in. Declared before `sql`: they end before the connection does.
    pub(super) cursors: HashMap<u32, Statement>,
    pub(super) sql: SqliteConnection,
    pub(super) walls: Arc<Walls>,
    pub(super) clock: AnchoredClock,
}

impl Connection {
    pub(super) async fn open(options: SqliteConnectOptions, clock: AnchoredClock) -> Result<Self, Error> {
        let mut sql = options.connect().await.map_err(classify)?;
        check_version(&mut sql).await?;
        let walls = {
            let mut handle = sql.lock_handle().await.map_err(classify)?;
            guest_sql::harden(&mut handle)?;
            Walls::raise(&mut handle)
        };
        Ok(Self { cursors: HashMap::new(), sql, walls, clock })
    }

    /// Runs an engine operation in a transaction of its own: committed if it is ok, else without a trace.
    pub(super) async fn transaction<T>(
        &mut self,
        operation: impl for<'c> FnOnce(&'c mut Self) -> LocalBoxFuture<'c, Result<T, Error>>,
    ) -> Result<T, Error> {
        self.sql.execute("BEGIN IMMEDIATE").await.map_err(classify)?;
        let done = match operation(self).await {
            Ok(value) => self.sql.execute("COMMIT").await.map(|_| value).map_err(classify),
            Err(error) => Err(error),
        };
        if done.is_err() {
            self.undo().await;
        }
        done
    }

    /// Opens the transaction in which guests write. The commit hook is closed from here on.
    pub(super) async fn begin_guest(&mut self) -> Result<(), sqlx::Error> {
        self.sql.execute("BEGIN IMMEDIATE").await?;
        self.walls.set_guest_in(true);
        Ok(())
    }

    /// After a guest, whatever it did: nothing of it is left that was not committed.
    pub(super) async fn end_guest(&mut self) {
        self.take_over().await;
        self.walls.set_mode(Mode::Host);
        self.walls.set_deadline(None);
        self.walls.set_claim(None);
        self.undo().await;
    }

    /// Ends the guest's part and opens the commit hook, with the transaction still open.
    pub(super) async fn take_over(&mut self) {
        self.close_cursors().await;
        self.walls.set_guest_in(false);
    }

    /// Whether the transaction is still open, see [`super::guest_sql::enter`].
    pub(super) async fn ensure_in_transaction(&mut self) -> Result<(), SqlError> {
        guest_sql::enter(&mut self.sql).await.map(|_| ())
    }

    async fn close_cursors(&mut self) {
        if self.cursors.is_empty() {
            return;
        }
        let _handle = self.sql.lock_handle().await; // Statements end while nobody else is at the connection.
        self.cursors.clear();
    }

    /// Rolls back if a transaction is open.
    async fn undo(&mut self) {
        let open = match self.sql.lock_handle().await {
            Ok(mut handle) => guest_sql::in_transaction(&mut handle),
            Err(_) => false, // The connection is gone, and its transaction with it.
        };
        if open && let Err(error) = self.sql.execute("ROLLBACK").await {
            // Whatever came next would run inside this transaction. A new host starts from what is committed.
            tracing::error!(%error, "could not roll back; this process ends");
            std::process::abort();
        }
    }
}

async fn check_version(sql: &mut SqliteConnection) -> Result<(), Error> {
    let text: String = sql.fetch_one("SELECT sqlite_version()").await.map_err(classify)?.get(0);
    let mut parts = text.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
    let mut next = || parts.next().unwrap_or(0);
    let version = (next(), next(), next());
    if version >= OLDEST {
        return Ok(());
    }
    Err(Error::Refused(format!(
        "SQLite {text} is too old: its write-ahead log can lose commits; Semel needs {}.{}.{} or newer",
        OLDEST.0, OLDEST.1, OLDEST.2
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Wall: the commit hook. Behind gate and authorizer nothing should come here; if it does, it commits nothing.
    #[tokio::test]
    async fn nothing_commits_while_a_guest_is_in() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let options = SqliteConnectOptions::new().filename(folder.path().join("test.db")).create_if_missing(true);
        let mut connection = Connection::open(options.clone(), AnchoredClock::anchor()).await.expect("a connection");
        connection.sql.execute("CREATE TABLE t (a)").await.expect("a table");
        connection.begin_guest().await.expect("a transaction");
        connection.sql.execute("INSERT INTO t VALUES (1)").await.expect("an insert");
        assert!(connection.sql.execute("COMMIT").await.is_err(), "the transaction was committed");
        assert!(connection.sql.execute("INSERT INTO t VALUES (2)").await.is_err(), "a statement committed by itself");
        connection.end_guest().await;
        let mut other = options.connect().await.expect("a second connection");
        let rows: i64 = other.fetch_one("SELECT count(*) FROM t").await.expect("a count").get(0);
        assert_eq!(rows, 0);
        connection.begin_guest().await.expect("a transaction");
        connection.sql.execute("INSERT INTO t VALUES (3)").await.expect("an insert");
        connection.take_over().await;
        connection.sql.execute("COMMIT").await.expect("the host itself may commit");
    }

    /// Wall: the ping. With the shortest queue that is long enough, and more threads than processors.
    #[tokio::test]
    async fn locks_in_a_row_never_wait_for_the_driver_that_waits_for_them() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let options = SqliteConnectOptions::new().filename(folder.path().join("test.db")).create_if_missing(true);
        let mut connection =
            options.command_buffer_size(guest_sql::MOST_LOCKS as usize).connect().await.expect("a connection");
        connection.execute("BEGIN").await.expect("a transaction");
        let busy = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(true));
        let crowd: Vec<_> = (0..8)
            .map(|_| {
                let busy = std::sync::Arc::clone(&busy);
                std::thread::spawn(move || while busy.load(std::sync::atomic::Ordering::Relaxed) {})
            })
            .collect();
        let locks = async {
            for _ in 0..30_000 {
                drop(guest_sql::enter(&mut connection).await.expect("a lock"));
            }
        };
        let done = tokio::time::timeout(std::time::Duration::from_secs(30), locks).await;
        busy.store(false, std::sync::atomic::Ordering::Relaxed);
        crowd.into_iter().for_each(|thread| thread.join().expect("an end"));
        assert!(done.is_ok(), "lock and driver wait for each other");
    }

    /// Wall: the authorizer in host mode. A trigger of an app that is in the file, however it came there, does not run
    /// with the engine's rights.
    #[tokio::test]
    async fn the_engine_runs_no_trigger() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let options = SqliteConnectOptions::new().filename(folder.path().join("test.db")).create_if_missing(true);
        let mut other = options.connect().await.expect("a connection without walls");
        for sql in [
            "CREATE TABLE t (a)",
            "CREATE TABLE stolen (a)",
            "CREATE TRIGGER thief AFTER INSERT ON t BEGIN INSERT INTO stolen VALUES (new.a); END",
        ] {
            other.execute(sql).await.expect(sql);
        }
        let mut connection = Connection::open(options, AnchoredClock::anchor()).await.expect("a connection");
        assert!(connection.sql.execute("INSERT INTO t VALUES (1)").await.is_err(), "the trigger ran");
        let rows: i64 = other.fetch_one("SELECT count(*) FROM stolen").await.expect("a count").get(0);
        assert_eq!(rows, 0);
    }
}
