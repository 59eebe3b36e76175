//! The guest's transaction on Postgres: a task owns the session, every call is a closure that runs there, in its turn.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures_util::future::BoxFuture;
use tokio::sync::{mpsc, oneshot};

use super::acknowledge::{self, Left};
use super::connection::Engine;
use super::guest::{Cursor, Guest};
use super::guests::Guests;
use super::running::{Running, key};
use super::wake::Hint;
use super::{Error, Postgres, api, gate, guest_sql};
use crate::message::{Answer, Claim, Event, Usage};
use crate::store::{Bounds, Column, Commit, Published, Rows, Savepoint, Session, SqlError, StateOp, StateReply, Value};

/// What a task of a session does next.
type Work = Box<dyn for<'c> FnOnce(&'c mut Guest) -> BoxFuture<'c, ()> + Send>;

/// How long the engine's own statements in a guest's transaction may take: they may wait for locks of others.
const LONGEST: Duration = Duration::from_secs(65);

pub(super) struct PostgresSession {
    engine: Engine,
    guests: Arc<Guests>,
    running: Arc<Running>,
    hint: Arc<Hint>,
    turn: Option<mpsc::Sender<Work>>,
    /// All that share the transaction, and the one that is in.
    claims: Vec<Claim>,
    claim: Option<Claim>,
    /// Whether the transaction knows the claims.
    entered: bool,
    /// The transaction was refused: the claim is somebody else's.
    fenced: bool,
    left: Vec<Left>,
    /// Of these, claims that the transaction does not know yet: their guests asked nothing of the database.
    idle: Vec<Claim>,
    savepoints: Vec<String>,
    cursors: u32,
    published: bool,
    /// For a claim that nobody holds.
    rehearses: bool,
}

impl PostgresSession {
    pub(super) fn new(store: &Postgres, rehearses: bool) -> Self {
        Self {
            engine: store.engine.clone(),
            guests: Arc::clone(&store.guests),
            running: Arc::clone(&store.running),
            hint: store.wake.hint(),
            turn: None,
            claims: Vec::new(),
            claim: None,
            entered: false,
            fenced: false,
            left: Vec::new(),
            idle: Vec::new(),
            savepoints: Vec::new(),
            cursors: 0,
            published: false,
            rehearses,
        }
    }

    /// Runs something in the transaction. It runs to its end even if nobody waits for the answer any more.
    async fn call<T, F>(&mut self, operation: F) -> Result<T, SqlError>
    where
        T: Send + 'static,
        F: for<'c> FnOnce(&'c mut Guest) -> BoxFuture<'c, Result<T, SqlError>> + Send + 'static,
    {
        if let Err(error) = self.open().await {
            tracing::warn!(%error, "a transaction was lost");
            return Err(SqlError::Doomed("the database is not available".into()));
        }
        if self.claim.as_ref().is_some_and(|claim| self.running.is_stopped(key(claim))) {
            return Err(SqlError::Deadline);
        }
        self.send(operation).await
    }

    async fn send<T, F>(&mut self, operation: F) -> Result<T, SqlError>
    where
        T: Send + 'static,
        F: for<'c> FnOnce(&'c mut Guest) -> BoxFuture<'c, Result<T, SqlError>> + Send + 'static,
    {
        let gone = || SqlError::Doomed("the transaction is over".into());
        let turn = self.turn.as_ref().ok_or_else(gone)?;
        let (reply, answer) = oneshot::channel();
        let work: Work = Box::new(move |guest| {
            Box::pin(async move {
                let _ = reply.send(operation(guest).await); // Nobody waits any more.
            })
        });
        turn.send(work).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }
}

impl Drop for PostgresSession {
    fn drop(&mut self) {
        self.claims.iter().for_each(|claim| self.running.leave(key(claim)));
    }
}

/// Owns a session until nobody has more work for it; then nothing is left of what was not committed.
async fn own(mut guest: Guest, guests: Arc<Guests>, mut inbox: mpsc::Receiver<Work>) {
    while let Some(work) = inbox.recv().await {
        work(&mut guest).await;
    }
    guest.end(&guests).await;
}

#[async_trait]
impl Session for PostgresSession {
    fn share(&mut self, claims: &[&Claim]) {
        for claim in claims {
            self.running.enter(key(claim));
            self.claims.push((*claim).clone());
        }
    }

    fn enter(&mut self, claim: &Claim) {
        if !self.claims.iter().any(|known| key(known) == key(claim)) {
            self.share(&[claim]);
        }
        self.claim = Some(claim.clone());
        self.savepoints.clear();
    }

    async fn open(&mut self) -> Result<(), Error> {
        let Some(claim) = self.claim.clone() else { return Ok(()) };
        if self.fenced {
            return Err(Error::Fenced);
        }
        if self.turn.is_none() {
            let app = self.guests.app(&self.engine, &claim.function, claim.version).await?;
            let (engine, guests, lease) = (self.engine.clone(), Arc::clone(&self.guests), claim.lease);
            // A task: a session that is half open when the run ends must not be dropped in the middle.
            let opened = self.engine.spawn(async move { Guest::open(engine, &guests, app, lease).await });
            let guest = opened.await.map_err(|e| Error::Broken(format!("a session failed: {e}")))??;
            let (turn, inbox) = mpsc::channel(1);
            self.engine.spawn(own(guest, Arc::clone(&self.guests), inbox));
            self.turn = Some(turn);
        }
        if !self.entered {
            let (claims, rehearses) = (self.claims.clone(), self.rehearses);
            let enter = self.send(move |guest| {
                Box::pin(
                    async move { if rehearses { guest.rehearse(&claim).await } else { guest.enter(&claims).await } },
                )
            });
            let entered = enter.await;
            self.fenced = matches!(entered, Ok(None));
            let entered = entered.map_err(|error| Error::Unavailable(format!("the claim was not entered: {error:?}")));
            let backend = entered?.ok_or(Error::Fenced)?;
            self.claims.iter().for_each(|claim| self.running.has_session(key(claim), backend));
            self.entered = true;
        }
        Ok(())
    }

    async fn query(&mut self, sql: String, params: Vec<Value>, bounds: Bounds) -> Result<Rows, SqlError> {
        let gate::Passed { text, reads } = gate::first_word(&sql).map_err(SqlError::Forbidden)?;
        let text = text.to_owned();
        self.call(move |guest| Box::pin(guest.query(text, params, bounds, reads))).await
    }

    async fn open_cursor(
        &mut self,
        sql: String,
        params: Vec<Value>,
        bounds: Bounds,
    ) -> Result<(u32, Vec<Column>), SqlError> {
        let gate::Passed { text, reads } = gate::first_word(&sql).map_err(SqlError::Forbidden)?;
        let text = text.to_owned();
        self.cursors += 1;
        let number = self.cursors;
        let opened = self.call(move |guest| {
            Box::pin(async move {
                if reads {
                    let declare = guest.watched(bounds.deadline, move |sql| {
                        Box::pin(async move { guest_sql::declare(sql, number, &text, &params).await })
                    });
                    let columns = declare.await?;
                    guest.cursors.insert(number, Cursor::Server);
                    return Ok((number, columns));
                }
                // One that writes is run now, whether or not anybody fetches what it returns.
                let rows = guest.query(text, params, bounds, reads).await?;
                guest.cursors.insert(number, Cursor::Rows(VecDeque::from(rows.rows)));
                Ok((number, rows.columns))
            })
        });
        opened.await
    }

    async fn fetch(&mut self, cursor: u32, bounds: Bounds) -> Result<Vec<Vec<Value>>, SqlError> {
        self.call(move |guest| {
            Box::pin(async move {
                let portion = bounds.rows as usize;
                match guest.cursors.get_mut(&cursor) {
                    None => return Err(SqlError::Parameter("the cursor is closed".into())),
                    Some(Cursor::Rows(rows)) => return Ok(rows.drain(..portion.min(rows.len())).collect()),
                    Some(Cursor::Server) => {}
                }
                let fetch = guest.watched(bounds.deadline, move |sql| Box::pin(guest_sql::fetch(sql, cursor, bounds)));
                fetch.await.map(|rows| rows.rows)
            })
        })
        .await
    }

    async fn close_cursor(&mut self, cursor: u32) {
        if self.turn.is_some() {
            let close = self.send(move |guest| {
                Box::pin(async move {
                    if let Some(Cursor::Server) = guest.cursors.remove(&cursor) {
                        guest.host(format!("CLOSE {}", guest_sql::cursor(cursor))).await?;
                    }
                    Ok(())
                })
            });
            let _ = close.await; // If the transaction is over or has failed, so is the cursor.
        }
    }

    async fn savepoint(&mut self, step: Savepoint) -> Result<(), SqlError> {
        // The guest's names stay here; Postgres sees numbers, so no name can mean anything to it.
        let find = |name: &str| self.savepoints.iter().rposition(|known| known == name).ok_or(SqlError::NoSavepoint);
        let (sql, keep) = match &step {
            Savepoint::Set(_) => (format!("SAVEPOINT semel_{}", self.savepoints.len()), self.savepoints.len()),
            Savepoint::RollbackTo(name) => {
                let place = find(name)?;
                (format!("ROLLBACK TO semel_{place}"), place + 1)
            }
            Savepoint::Release(name) => {
                let place = find(name)?;
                (format!("RELEASE semel_{place}"), place)
            }
        };
        self.call(move |guest| Box::pin(guest.host(sql))).await?;
        self.savepoints.truncate(keep);
        if let Savepoint::Set(name) = step {
            self.savepoints.push(name);
        }
        Ok(())
    }

    /// The namespace is that of the claim that was entered, which the database knows.
    async fn state(&mut self, _: String, op: StateOp) -> Result<StateReply, SqlError> {
        let token = self.token()?;
        self.call(move |guest| {
            Box::pin(guest.watched(Instant::now() + LONGEST, move |sql| Box::pin(api::state(sql, token, op))))
        })
        .await
    }

    async fn publish(&mut self, events: Vec<Event>) -> Result<Published, SqlError> {
        let token = self.token()?;
        let publish = self.call(move |guest| {
            Box::pin(guest.watched(Instant::now() + LONGEST, move |sql| Box::pin(api::publish(sql, token, events))))
        });
        let published = publish.await?;
        self.published |= published == Published::Done;
        Ok(published)
    }

    fn leave(&mut self, answer: Option<Answer>, usage: Usage) {
        if let Some(claim) = self.claim.take() {
            if !self.entered {
                self.idle.push(claim.clone());
            }
            self.left.push(Left { claim, answer, usage });
        }
    }

    async fn commit(mut self: Box<Self>) -> Commit {
        if self.rehearses {
            self.rollback().await;
            return Commit::RolledBack;
        }
        let left = self.left.clone();
        if left.is_empty() {
            return Commit::RolledBack;
        }
        if self.fenced {
            return Commit::Fenced;
        }
        let committed = if self.turn.is_some() {
            for claim in std::mem::take(&mut self.idle) {
                self.enter(&claim); // Else the server takes no acknowledgement of it.
                match self.open().await {
                    Ok(()) => self.claim = None,
                    Err(Error::Fenced) => return Commit::Fenced,
                    Err(_) => return Commit::RolledBack,
                }
            }
            let commit = self.send(move |guest| Box::pin(async move { Ok(guest.commit(left).await) }));
            commit.await.unwrap_or(Commit::Unknown)
        } else {
            // The guest touched nothing: the acknowledgement alone is a short operation of the engine.
            acknowledge::alone(&self.engine, Arc::clone(&self.running), left).await
        };
        match committed {
            Commit::Committed if self.published => self.hint.all(),
            Commit::Unknown => drop(std::mem::take(&mut self.claims)), // Known to `resolve` until it has an answer.
            _ => {}
        }
        committed
    }

    async fn rollback(mut self: Box<Self>) {
        if self.turn.is_some() {
            // Answered when the transaction is undone, so that its locks are free for what comes next.
            let undo = self.send(|guest| Box::pin(async move { guest.host("ROLLBACK".into()).await }));
            let _ = undo.await; // A transaction that is over needs no rollback.
        }
    }
}

impl PostgresSession {
    fn token(&self) -> Result<[u8; 16], SqlError> {
        let gone = || SqlError::Doomed("no claim is in".into());
        self.claim.as_ref().map(|claim| claim.token.0).ok_or_else(gone)
    }
}
