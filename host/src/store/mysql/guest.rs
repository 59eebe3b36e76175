//! One session with a guest's transaction open.
//!
//! A statement runs in a task of its own, which has the connection meanwhile: whoever goes away takes nothing along, and a
//! session that nobody came back for is closed. After an error that may have ended the transaction, or lost a part of it,
//! nothing more is said on the session but its end.

use std::collections::{HashMap, VecDeque};
use std::pin::pin;
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use sqlx::mysql::MySqlConnection;
use sqlx::{AssertSqlSafe, Executor};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{timeout, timeout_at};

use super::acknowledge::{self, Entry, Left};
use super::connection::Engine;
use super::gate::Passed;
use super::group::Groups;
use super::guests::{App, Guests, Seat};
use super::running::{self, Backend};
use super::{Error, classify, guest_sql, rehearsal};
use crate::store::{Bounds, Column, Commit, Rows, SqlError, Value, Wanted};

/// How long what the host itself says may take, and a statement that was told to end.
const SHORT: Duration = Duration::from_secs(5);
/// Bytes of the rows that all cursors of a transaction hold: the server has no cursor that lets other statements run beside it.
const CURSORS: usize = 32 << 20;

/// How far the transaction is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stands {
    Open,
    /// Nothing more may be said but its end.
    Spoiled,
    Ended,
    /// Nobody knows.
    Lost,
}

/// What a cursor still has.
struct Cursor {
    rows: VecDeque<Vec<Value>>,
    bytes: usize,
}

pub(super) struct Guest {
    engine: Engine,
    /// Not here while a statement is under way.
    seat: Option<Seat>,
    backend: Backend,
    stands: Stands,
    /// A savepoint whose name nobody can know: gone if the transaction ended.
    canary: String,
    /// The engine's database, quoted.
    database: String,
    /// The app's, which is no guest's concern.
    schema: String,
    app: App,
    cursors: HashMap<u32, Cursor>,
    /// To be withdrawn at the end.
    rehearsal: Option<crate::message::Claim>,
    _room: OwnedSemaphorePermit,
}

impl Guest {
    /// A session with a transaction open that has entered what it is for, and in which nothing else was done. Fenced if one of
    /// the claims no longer holds.
    pub(super) async fn open(
        engine: &Engine,
        guests: &Guests,
        app: App,
        lease: Duration,
        entry: Entry,
    ) -> Result<(Self, Backend), Error> {
        let (canary, database) =
            (format!("semel_{}", hex::encode(rand::random::<[u8; 8]>())), guests.engine_database());
        // A frozen host lets go of its rows after a lease.
        let begin = format!("{}; START TRANSACTION; SAVEPOINT {canary}", guests.idle_transaction(lease));
        let rehearsal = match &entry {
            Entry::Rehearsal(claim) => Some(claim.clone()),
            Entry::Claims(_) => None,
        };
        if let Some(claim) = &rehearsal {
            rehearsal::announce(engine, claim).await?;
        }
        let (seat, room) = guests.begin(engine, &app).await?;
        let backend = Backend { process: seat.process };
        let mut guest = Self {
            engine: engine.clone(),
            seat: Some(seat),
            backend,
            stands: Stands::Open,
            canary,
            database: database.clone(),
            schema: guests.database(&app),
            app,
            cursors: HashMap::new(),
            rehearsal,
            _room: room,
        };
        let begun = guest.run(Instant::now() + SHORT, move |connection| {
            Box::pin(async move {
                let begun = sqlx::raw_sql(AssertSqlSafe(begin)).execute(&mut *connection).await;
                Ok(match begun {
                    Ok(_) => entry.enter(connection, &database).await.map_err(at_entry),
                    Err(error) => Err(classify(error)),
                })
            })
        });
        match begun.await.unwrap_or_else(|_| Err(Error::Unavailable("a session does not answer".into()))) {
            Ok(()) => Ok((guest, backend)),
            Err(error) => {
                guest.end(guests).await;
                Err(error)
            }
        }
    }

    /// Does something on the connection, which is ended at the deadline.
    async fn run<T, F>(&mut self, deadline: Instant, work: F) -> Result<T, SqlError>
    where
        T: Send + 'static,
        F: for<'c> FnOnce(&'c mut MySqlConnection) -> BoxFuture<'c, Result<T, SqlError>> + Send + 'static,
    {
        let over = || SqlError::Doomed("the transaction is over".into());
        if self.stands != Stands::Open {
            return Err(over());
        }
        let mut seat = self.seat.take().ok_or_else(over)?;
        let (engine, backend) = (self.engine.clone(), self.backend);
        let task = self.engine.spawn(async move {
            let done = watched(&engine, backend, deadline, work(&mut seat.connection)).await;
            (seat, done)
        });
        match task.await {
            Ok((seat, Some(done))) => {
                self.seat = Some(seat);
                if done.as_ref().err().is_some_and(guest_sql::spoils) {
                    self.stands = Stands::Spoiled;
                }
                done
            }
            Ok((_, None)) => {
                self.stands = Stands::Lost;
                Err(SqlError::Deadline)
            }
            Err(error) => {
                tracing::error!(%error, "a statement was lost");
                self.stands = Stands::Lost;
                Err(over())
            }
        }
    }

    /// Runs a guest's statement that has passed the gate.
    pub(super) async fn query(
        &mut self,
        passed: Passed,
        params: Vec<Value>,
        bounds: Bounds,
        wanted: Wanted,
    ) -> Result<Rows, SqlError> {
        let rows = self.run(bounds.deadline, move |connection| {
            Box::pin(async move { guest_sql::query(connection, &passed, &params, bounds, wanted).await })
        });
        rows.await.map_err(|error| guest_sql::without(error, &self.schema))
    }

    /// Opens a cursor: the statement is run, and its rows are held.
    pub(super) async fn open_cursor(
        &mut self,
        number: u32,
        passed: Passed,
        params: Vec<Value>,
        bounds: Bounds,
    ) -> Result<Vec<Column>, SqlError> {
        let held: usize = self.cursors.values().map(|cursor| cursor.bytes).sum();
        let bounds = Bounds { rows: u32::MAX, bytes: CURSORS.saturating_sub(held), ..bounds };
        let rows = self.query(passed, params, bounds, Wanted::Rows).await?;
        let bytes = rows.rows.iter().flatten().map(Value::size).sum();
        self.cursors.insert(number, Cursor { rows: rows.rows.into(), bytes });
        Ok(rows.columns)
    }

    /// The next rows of a cursor.
    pub(super) fn fetch(&mut self, number: u32, bounds: Bounds) -> Result<Vec<Vec<Value>>, SqlError> {
        let cursor = self.cursors.get_mut(&number).ok_or_else(|| SqlError::Parameter("the cursor is closed".into()))?;
        let portion = (bounds.rows as usize).min(cursor.rows.len());
        let rows: Vec<_> = cursor.rows.drain(..portion).collect();
        let bytes: usize = rows.iter().flatten().map(Value::size).sum();
        cursor.bytes = cursor.bytes.saturating_sub(bytes);
        if bytes > bounds.bytes { Err(SqlError::TooManyBytes) } else { Ok(rows) }
    }

    /// Frees a cursor.
    pub(super) fn close_cursor(&mut self, number: u32) {
        self.cursors.remove(&number);
    }

    /// A statement of the host's own.
    pub(super) async fn host(&mut self, text: String) -> Result<(), SqlError> {
        self.ask(SHORT, move |connection, _| {
            Box::pin(async move { connection.execute(AssertSqlSafe(text)).await.map(drop).map_err(guest_sql::refused) })
        })
        .await
    }

    /// Something that the host itself asks, with the name of the engine's database.
    pub(super) async fn ask<T, F>(&mut self, longest: Duration, work: F) -> Result<T, SqlError>
    where
        T: Send + 'static,
        F: for<'c> FnOnce(&'c mut MySqlConnection, String) -> BoxFuture<'c, Result<T, SqlError>> + Send + 'static,
    {
        let database = self.database.clone();
        self.run(Instant::now() + longest, move |connection| work(connection, database)).await
    }

    /// Acknowledges and commits: the only place where a guest's effects become visible.
    pub(super) async fn commit(&mut self, left: &[Left], groups: Groups) -> Commit {
        if self.stands != Stands::Open {
            return Commit::RolledBack;
        }
        let Some(mut seat) = self.seat.take() else { return Commit::RolledBack };
        let (database, canary, left) = (self.database.clone(), self.canary.clone(), left.to_vec());
        let task = self.engine.spawn(async move {
            let committed = acknowledge::commit(&mut seat.connection, &database, &canary, &left, &groups).await;
            (seat, committed)
        });
        match task.await {
            Ok((seat, committed)) => {
                match committed {
                    Commit::Committed => self.stands = Stands::Ended,
                    Commit::Unknown => {
                        self.stands = Stands::Ended; // Nothing more is said on it, and its end is not ours to bring about.
                        return committed;
                    }
                    _ => self.stands = Stands::Spoiled,
                }
                self.seat = Some(seat);
                committed
            }
            Err(error) => {
                tracing::error!(%error, "a commit was lost");
                self.stands = Stands::Ended;
                Commit::Unknown
            }
        }
    }

    /// Nothing is left of what was not committed.
    pub(super) async fn undo(&mut self) {
        if let Some(claim) = self.rehearsal.take() {
            rehearsal::withdraw(&self.engine, &claim).await;
        }
        let spoiled = match self.stands {
            Stands::Ended => return,
            Stands::Open => false,
            Stands::Spoiled | Stands::Lost => true,
        };
        let undone = match &mut self.seat {
            Some(seat) => matches!(timeout(SHORT, seat.connection.execute("ROLLBACK")).await, Ok(Ok(_))),
            None => false,
        };
        match (undone, spoiled) {
            (true, false) => self.stands = Stands::Ended,
            // Something may still be meant for it, such as the order to end a statement.
            (true, true) => self.lose(),
            (false, _) => {
                self.lose();
                let _ = running::terminate(&self.engine, self.backend).await; // Else its locks are there until the server notices.
            }
        }
    }

    /// Closes the connection, without a word.
    fn lose(&mut self) {
        self.stands = Stands::Lost;
        self.seat = None;
    }

    /// Nothing is left of what was not committed, and the session goes back; it is closed if that is not sure.
    pub(super) async fn end(mut self, guests: &Guests) {
        self.undo().await;
        if let (Stands::Ended, Some(seat)) = (self.stands, self.seat.take()) {
            guests.give(&self.app, seat).await;
        }
    }
}

/// Waits for it until the deadline, then has the server end it. None: it does not even answer to that.
async fn watched<T>(
    engine: &Engine,
    backend: Backend,
    deadline: Instant,
    work: impl Future<Output = Result<T, SqlError>>,
) -> Option<Result<T, SqlError>> {
    let mut work = pin!(work);
    if let Ok(done) = timeout_at(deadline.into(), &mut work).await {
        return Some(done);
    }
    if let Err(error) = running::cancel(engine, backend).await {
        tracing::warn!(%error, "a statement cannot be ended; its session is");
        return None;
    }
    let ended = timeout(SHORT, work).await.ok()?;
    // Too late in any case; and what was to end it may hit whatever comes next.
    Some(ended.and(Err(SqlError::Deadline)))
}

/// Why a transaction did not enter what it is for.
fn at_entry(error: sqlx::Error) -> Error {
    let code = error.as_database_error().and_then(|error| error.code().map(|code| code.into_owned()));
    if code.as_deref() == Some("SM001") { Error::Fenced } else { classify(error) }
}
