//! One session with a guest's transaction open.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::OwnedSemaphorePermit;

use super::acknowledge::{self, Entry, Left};
use super::connection::Engine;
use super::guests::{App, AppSession, Guests};
use super::line::{self, SHORT, Shared};
use super::running::Backend;
use super::{Error, guest_sql, rehearsal};
use crate::store::{Answered, Bounds, Column, Commit, Rows, SqlError, Value, Wanted};

/// A cursor that is open.
enum Cursor {
    /// On the server.
    Server,
    /// Rows that a statement that writes has returned.
    Rows(VecDeque<Vec<Value>>),
}

/// How far the transaction is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stands {
    Open,
    Committed,
    Undone,
    /// Nobody knows.
    Lost,
}

pub(super) struct Guest {
    session: AppSession,
    stands: Stands,
    /// A savepoint whose name nobody can know: gone if the guest ended the transaction.
    canary: String,
    app: App,
    cursors: HashMap<u32, Cursor>,
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
        entry: &Entry,
    ) -> Result<(Self, Backend), Error> {
        let canary = format!("semel_{}", hex::encode(rand::random::<[u8; 8]>()));
        // Said each time: a guest may have changed the default. A frozen host lets go of its rows after a lease.
        let begin = format!(
            "BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL idle_in_transaction_session_timeout = {}; SAVEPOINT {canary}",
            lease.as_millis().clamp(1, 2_000_000_000)
        );
        if let Entry::Rehearsal(claim) = entry {
            rehearsal::announce(engine, claim).await?;
        }
        let begun = guests.begin(engine, &app, &begin, entry).await;
        if let Entry::Rehearsal(claim) = entry {
            rehearsal::withdraw(engine, claim).await;
        }
        let (session, entered, room) = begun?;
        let process = session.line.process;
        let guest = Self { session, stands: Stands::Open, canary, app, cursors: HashMap::new(), _room: room };
        match entered {
            Ok(entered) => Ok((guest, Backend { process, transaction: entered.transaction })),
            Err(error) => {
                guest.end(guests).await;
                Err(error)
            }
        }
    }

    pub(super) fn line(&self) -> Shared {
        Arc::clone(&self.session.line)
    }

    /// Runs a guest's statement that has passed the gate.
    pub(super) async fn query(
        &mut self,
        text: &str,
        params: &[Value],
        bounds: Bounds,
        reads: bool,
    ) -> Result<Rows, SqlError> {
        let AppSession { line, plans, .. } = &mut self.session;
        let query = line.watched(bounds.deadline, async {
            let prepared = guest_sql::prepare(&line.client, plans, text, params).await?;
            guest_sql::query(&line.client, prepared, bounds, reads).await
        });
        let rows = query.await;
        if matches!(rows, Err(SqlError::TooManyRows | SqlError::TooManyBytes)) {
            line.skip_the_rest().await;
        }
        rows
    }

    /// Begins a guest's statement that has passed the gate. Somebody waits for its answer, or ends it at its deadline, even if
    /// whoever asked does not.
    pub(super) async fn send(
        &mut self,
        text: &str,
        params: &[Value],
        bounds: Bounds,
        reads: bool,
        wanted: Wanted,
    ) -> Result<Answered, SqlError> {
        let AppSession { line, plans, .. } = &mut self.session;
        let prepared = line.watched(bounds.deadline, guest_sql::prepare(&line.client, plans, text, params)).await?;
        let line = Arc::clone(line);
        let answered = tokio::spawn(line::sent(async move {
            let answer = guest_sql::answer(&line.client, prepared, bounds, reads, wanted);
            let answer = line.watched(bounds.deadline, answer).await;
            if matches!(answer, Err(SqlError::TooManyRows | SqlError::TooManyBytes)) {
                line.skip_the_rest().await;
            }
            answer
        }));
        let failed = |_| Err(SqlError::Doomed("a statement has no answer".into()));
        Ok(Box::pin(async move { answered.await.unwrap_or_else(failed) }))
    }

    /// Opens a cursor. A statement that writes is run now, whether or not anybody fetches what it returns.
    pub(super) async fn open_cursor(
        &mut self,
        number: u32,
        text: &str,
        params: &[Value],
        bounds: Bounds,
        reads: bool,
    ) -> Result<Vec<Column>, SqlError> {
        if !reads {
            let rows = self.query(text, params, bounds, reads).await?;
            self.cursors.insert(number, Cursor::Rows(VecDeque::from(rows.rows)));
            return Ok(rows.columns);
        }
        let AppSession { line, plans, .. } = &mut self.session;
        let declare = guest_sql::declare(&line.client, plans, number, text, params);
        let columns = line.watched(bounds.deadline, declare).await?;
        self.cursors.insert(number, Cursor::Server);
        Ok(columns)
    }

    /// The next rows of a cursor.
    pub(super) async fn fetch(&mut self, number: u32, bounds: Bounds) -> Result<Vec<Vec<Value>>, SqlError> {
        let portion = bounds.rows as usize;
        match self.cursors.get_mut(&number) {
            None => return Err(SqlError::Parameter("the cursor is closed".into())),
            Some(Cursor::Rows(rows)) => return Ok(rows.drain(..portion.min(rows.len())).collect()),
            Some(Cursor::Server) => {}
        }
        let line = &self.session.line;
        line.watched(bounds.deadline, guest_sql::fetch(&line.client, number, bounds)).await.map(|rows| rows.rows)
    }

    /// Frees a cursor. If the transaction is over or has failed, so is the cursor.
    pub(super) async fn close_cursor(&mut self, number: u32) {
        if let Some(Cursor::Server) = self.cursors.remove(&number) {
            let _ = self.host(&format!("CLOSE {}", guest_sql::cursor(number))).await;
        }
    }

    /// A statement of the host's own.
    pub(super) async fn host(&mut self, text: &str) -> Result<(), SqlError> {
        let line = &self.session.line;
        let run = async { line.client.batch_execute(text).await.map_err(guest_sql::refused) };
        line.watched(Instant::now() + SHORT, run).await
    }

    /// Acknowledges and commits: the only place where a guest's effects become visible.
    pub(super) async fn commit(&mut self, left: &[Left]) -> Commit {
        let committed = acknowledge::commit(&self.session.line.client, &self.canary, left).await;
        match committed {
            Commit::Committed => self.stands = Stands::Committed,
            Commit::Unknown => {
                self.stands = Stands::Lost;
                self.session.line.close(); // Nothing more is said on it.
            }
            _ => {}
        }
        committed
    }

    /// Nothing is left of what was not committed.
    pub(super) async fn undo(&mut self) {
        if self.stands == Stands::Open {
            let undone = self.host("ROLLBACK").await.is_ok();
            self.stands = if undone { Stands::Undone } else { Stands::Lost };
        }
    }

    /// Nothing is left of what was not committed, and the session goes back; it is closed if that is not sure.
    pub(super) async fn end(mut self, guests: &Guests) {
        self.undo().await;
        if self.stands != Stands::Lost && !self.session.plans.spoiled {
            guests.give(self.app.name, self.session, self.stands == Stands::Committed);
        }
    }
}
