//! The guest's transaction on MariaDB and MySQL.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::acknowledge::{Entry, Left};
use super::connection::Engine;
use super::group::Groups;
use super::guest::Guest;
use super::guests::Guests;
use super::running::{Running, key};
use super::wake::Hint;
use super::{Error, Mysql, api, gate};
use crate::message::{Answer, Claim, Event, Usage};
use crate::store::{
    Answered, Bounds, Column, Commit, Published, Rows, Savepoint, Session, SqlError, StateOp, StateReply, Value, Wanted,
};

/// How long the engine's own statements in a guest's transaction may take: they may wait for locks of others.
const LONGEST: Duration = Duration::from_secs(65);

pub(super) struct MysqlSession {
    engine: Engine,
    guests: Arc<Guests>,
    running: Arc<Running>,
    hint: Arc<Hint>,
    /// Once the transaction is open.
    guest: Option<Guest>,
    /// All that share the transaction, and the one that is in.
    claims: Vec<Claim>,
    claim: Option<Claim>,
    /// The transaction was refused: the claim is somebody else's.
    fenced: bool,
    left: Vec<Left>,
    savepoints: Vec<String>,
    cursors: u32,
    published: bool,
    /// Of messages that were published: put in order with the acknowledgement.
    groups: Groups,
    /// For a claim that nobody holds.
    rehearses: bool,
}

impl MysqlSession {
    pub(super) fn new(store: &Mysql, rehearses: bool) -> Self {
        Self {
            engine: store.engine.clone(),
            guests: Arc::clone(&store.guests),
            running: Arc::clone(&store.running),
            hint: store.wake.hint(),
            guest: None,
            claims: Vec::new(),
            claim: None,
            fenced: false,
            left: Vec::new(),
            savepoints: Vec::new(),
            cursors: 0,
            published: false,
            groups: Groups::default(),
            rehearses,
        }
    }

    /// The transaction, opened if need be, for a guest's next call.
    async fn guest(&mut self) -> Result<&mut Guest, SqlError> {
        if let Err(error) = self.open().await {
            tracing::warn!(%error, "a transaction was lost");
            return Err(SqlError::Doomed("the database is not available".into()));
        }
        if self.claim.as_ref().is_some_and(|claim| self.running.is_stopped(key(claim))) {
            return Err(SqlError::Deadline);
        }
        self.guest.as_mut().ok_or_else(|| SqlError::Doomed("the transaction is over".into()))
    }

    /// The place and the token by which the engine's procedures know for whom they work.
    fn entered(&self) -> Result<(i64, [u8; 16]), SqlError> {
        let claim = self.claim.as_ref().ok_or_else(|| SqlError::Doomed("no claim is in".into()))?;
        Ok((if self.rehearses { -1 } else { claim.seq }, claim.token.0))
    }

    /// Opens the transaction for claims that a guest touched nothing with, and then says what came of their commit.
    async fn commit_left(&mut self) -> Commit {
        if self.guest.is_none() {
            self.claim = self.left.first().map(|left| left.claim.clone());
            match self.open().await {
                Ok(()) => {}
                Err(Error::Fenced) => return Commit::Fenced,
                Err(error) => {
                    tracing::warn!(%error, "no session for an acknowledgement");
                    return Commit::RolledBack;
                }
            }
        }
        match &mut self.guest {
            Some(guest) => guest.commit(&self.left, std::mem::take(&mut self.groups)).await,
            None => Commit::RolledBack,
        }
    }
}

/// What was not committed is undone, and the session goes back, whoever waits for that.
impl Drop for MysqlSession {
    fn drop(&mut self) {
        self.claims.iter().for_each(|claim| self.running.leave(key(claim)));
        if let Some(guest) = self.guest.take() {
            let guests = Arc::clone(&self.guests);
            self.engine.spawn(async move { guest.end(&guests).await });
        }
    }
}

#[async_trait]
impl Session for MysqlSession {
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
        if self.guest.is_none() {
            let app = self.guests.app(&self.engine, &claim.function, claim.version).await?;
            let lease = claim.lease;
            let entry = if self.rehearses { Entry::Rehearsal(claim) } else { Entry::Claims(self.claims.clone()) };
            let opened = Guest::open(&self.engine, &self.guests, app, lease, entry).await;
            self.fenced = matches!(opened, Err(Error::Fenced));
            let (guest, backend) = opened?;
            self.claims.iter().for_each(|claim| self.running.has_session(key(claim), backend));
            self.guest = Some(guest);
        }
        Ok(())
    }

    async fn query(&mut self, sql: String, params: Vec<Value>, bounds: Bounds) -> Result<Rows, SqlError> {
        let passed = gate::first_word(&sql).map_err(SqlError::Forbidden)?;
        self.guest().await?.query(passed, params, bounds, Wanted::Rows).await
    }

    /// Here all is known at once.
    async fn send(
        &mut self,
        sql: String,
        params: Vec<Value>,
        bounds: Bounds,
        wanted: Wanted,
    ) -> Result<Answered, SqlError> {
        let passed = gate::first_word(&sql).map_err(SqlError::Forbidden)?;
        let rows = self.guest().await?.query(passed, params, bounds, wanted).await?;
        Ok(Box::pin(std::future::ready(Ok(rows))))
    }

    async fn open_cursor(
        &mut self,
        sql: String,
        params: Vec<Value>,
        bounds: Bounds,
    ) -> Result<(u32, Vec<Column>), SqlError> {
        let passed = gate::first_word(&sql).map_err(SqlError::Forbidden)?;
        self.cursors += 1;
        let number = self.cursors;
        let columns = self.guest().await?.open_cursor(number, passed, params, bounds).await?;
        Ok((number, columns))
    }

    async fn fetch(&mut self, cursor: u32, bounds: Bounds) -> Result<Vec<Vec<Value>>, SqlError> {
        self.guest().await?.fetch(cursor, bounds)
    }

    async fn close_cursor(&mut self, cursor: u32) {
        if let Some(guest) = &mut self.guest {
            guest.close_cursor(cursor);
        }
    }

    async fn savepoint(&mut self, step: Savepoint) -> Result<(), SqlError> {
        // The guest's names stay here; the server sees numbers, so no name can mean anything to it.
        let find = |name: &str| self.savepoints.iter().rposition(|known| known == name).ok_or(SqlError::NoSavepoint);
        let (sql, keep) = match &step {
            Savepoint::Set(_) => (format!("SAVEPOINT semel_{}", self.savepoints.len()), self.savepoints.len()),
            Savepoint::RollbackTo(name) => {
                let place = find(name)?;
                (format!("ROLLBACK TO SAVEPOINT semel_{place}"), place + 1)
            }
            Savepoint::Release(name) => {
                let place = find(name)?;
                (format!("RELEASE SAVEPOINT semel_{place}"), place)
            }
        };
        self.guest().await?.host(sql).await?;
        self.savepoints.truncate(keep);
        if let Savepoint::Set(name) = step {
            self.savepoints.push(name);
        }
        Ok(())
    }

    /// The namespace is that of the claim that was entered, which the database knows.
    async fn state(&mut self, _: String, op: StateOp) -> Result<StateReply, SqlError> {
        let (seq, token) = self.entered()?;
        let work = self.guest().await?.ask(LONGEST, move |connection, engine| {
            Box::pin(async move { api::state(connection, &engine, seq, token, op).await })
        });
        work.await
    }

    async fn publish(&mut self, events: Vec<Event>) -> Result<Published, SqlError> {
        let (seq, token) = self.entered()?;
        let work = self.guest().await?.ask(LONGEST, move |connection, engine| {
            Box::pin(async move {
                let mut groups = Groups::default();
                let published = api::publish(connection, &engine, seq, token, events, &mut groups).await?;
                Ok((published, groups))
            })
        });
        let (published, groups) = work.await?;
        self.groups.extend(groups);
        self.published |= published == Published::Done;
        Ok(published)
    }

    fn leave(&mut self, answer: Option<Answer>, usage: Usage) {
        if let Some(claim) = self.claim.take() {
            self.left.push(Left { claim, answer, usage });
        }
    }

    async fn commit(mut self: Box<Self>) -> Commit {
        if self.rehearses {
            self.rollback().await;
            return Commit::RolledBack;
        }
        if self.left.is_empty() {
            return Commit::RolledBack;
        }
        if self.fenced {
            return Commit::Fenced;
        }
        let committed = self.commit_left().await;
        match committed {
            Commit::Committed if self.published => self.hint.all(),
            Commit::Unknown => drop(std::mem::take(&mut self.claims)), // Known to `resolve` until it has an answer.
            _ => {}
        }
        committed
    }

    /// Answered when the transaction is undone, so that its locks are free for what comes next.
    async fn rollback(mut self: Box<Self>) {
        if let Some(guest) = &mut self.guest {
            guest.undo().await;
        }
    }
}
