//! `transaction`: SQL inside the transaction of the current message.
//!
//! The transaction is opened on the first call. What the WIT promises on every database is kept here: a failed
//! statement fails the transaction until `rollback-to`, a doomed one cannot be saved, a forbidden one cannot be
//! hidden. [`Transaction::verdict`] is what stands against a commit, whatever the guest returns.

use std::time::{Duration, Instant};

use wasmtime::component::{Resource, ResourceTable};

use super::bindings::semel::function::transaction as wit;
use super::bindings::semel::function::types;
use super::log::cut;
use super::value;
use crate::crash::{self, Point};
use crate::engine::limits::{
    MOST_CURSORS, MOST_PARAMETERS, MOST_SAVEPOINTS, REASON_BYTES, RESULT_BYTES, SAVEPOINT_BYTES,
};
use crate::manifest::Limits;
use crate::store::{self, Bounds, Published, Rows, Savepoint, Session, SqlError, StateOp, StateReply, Value};

/// The run must end now; not an error that a guest could handle.
#[derive(Debug, thiserror::Error)]
#[error("the hard timeout passed inside a call of the host")]
pub(crate) struct TimedOut;

/// What stands against a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    Sound,
    /// A statement failed and was not undone.
    Failed(String),
    /// A statement that is not allowed was tried.
    Forbidden(String),
    /// The database gave the transaction up.
    Doomed(String),
    /// The claim no longer held when it was to open.
    Fenced,
}

pub(crate) struct Transaction {
    session: Box<dyn Session>,
    /// Whether a turn was waited for already.
    open: bool,
    deadline: Instant,
    rows: u32,
    statements_left: u32,
    table: ResourceTable,
    cursors: usize,
    savepoints: u32,
    failed: Option<String>,
    /// A deferred statement failed: the attempt cannot succeed, undone or not.
    lost: Option<String>,
    forbidden: Option<String>,
    doomed: Option<String>,
    fenced: bool,
    pub(crate) statements: u32,
    pub(crate) sql_time: Duration,
}

/// A handle to rows that are fetched in portions.
#[expect(unreachable_pub, reason = "the generated bindings re-export it")]
pub struct Cursor {
    number: u32,
    columns: Vec<wit::Column>,
}

impl Transaction {
    pub(crate) fn new(session: Box<dyn Session>, limits: &Limits, deadline: Instant) -> Self {
        let mut table = ResourceTable::new();
        table.set_max_capacity(MOST_CURSORS);
        Self {
            session,
            open: false,
            deadline,
            rows: limits.rows,
            statements_left: limits.statements,
            table,
            cursors: 0,
            savepoints: 0,
            failed: None,
            lost: None,
            forbidden: None,
            doomed: None,
            fenced: false,
            statements: 0,
            sql_time: Duration::ZERO,
        }
    }

    /// When the run must be over. Waiting for the database moves it.
    pub(crate) fn deadline(&self) -> Instant {
        self.deadline
    }

    /// The worst that happened.
    pub(crate) fn verdict(&self) -> Verdict {
        let cut = |reason: &String| cut(reason.clone(), REASON_BYTES);
        let undone = |reason| format!("a statement failed and was not undone with rollback-to: {}", cut(reason));
        if self.fenced {
            Verdict::Fenced
        } else if let Some(reason) = &self.forbidden {
            Verdict::Forbidden(cut(reason))
        } else if let Some(reason) = &self.doomed {
            Verdict::Doomed(cut(reason))
        } else if let Some(reason) = self.lost.as_ref().or(self.failed.as_ref()) {
            Verdict::Failed(undone(reason))
        } else {
            Verdict::Sound
        }
    }

    /// Gives the session back for the settlement.
    pub(crate) fn into_session(self) -> Box<dyn Session> {
        self.session
    }

    /// Opens the transaction if need be. Waiting for the writer is not the guest's time.
    async fn enter(&mut self) -> Result<(), wit::Error> {
        if let Some(reason) = &self.doomed {
            return Err(wit::Error::Doomed(reason.clone()));
        }
        if !self.open {
            let waiting = Instant::now();
            let opened = self.session.open().await;
            self.deadline += waiting.elapsed();
            if let Err(error) = opened {
                tracing::warn!(%error, "a transaction could not be opened");
                self.fenced = error == store::Error::Fenced;
                let reason = "the database is not available".to_owned();
                self.doomed = Some(reason.clone());
                return Err(wit::Error::Doomed(reason));
            }
            self.open = true;
        }
        Ok(())
    }

    /// Before a statement: open, not failed, within its limits.
    async fn statement(&mut self) -> wasmtime::Result<Result<Bounds, wit::Error>> {
        if let Err(error) = self.enter().await {
            return Ok(Err(error));
        }
        if self.failed.is_some() {
            return Ok(Err(wit::Error::Failed));
        }
        if Instant::now() >= self.deadline {
            return Err(TimedOut.into());
        }
        if self.statements_left == 0 {
            self.failed = Some("too many statements".into());
            return Ok(Err(wit::Error::Limit(wit::Limit::Statements)));
        }
        self.statements_left -= 1;
        self.statements += 1;
        Ok(Ok(Bounds { rows: self.rows, bytes: RESULT_BYTES, deadline: self.deadline }))
    }

    /// Remembers what an error means for the rest of the attempt, and tells the guest.
    fn refuse(&mut self, error: SqlError) -> wasmtime::Result<wit::Error> {
        Ok(match error {
            SqlError::Database(error) => {
                self.failed = Some(error.message.clone());
                wit::Error::Database(value::database_error(*error))
            }
            SqlError::Doomed(reason) => {
                self.doomed = Some(reason.clone());
                wit::Error::Doomed(reason)
            }
            SqlError::Forbidden(reason) => {
                self.forbidden = Some(reason.clone());
                wit::Error::Forbidden(reason)
            }
            SqlError::Parameter(reason) => wit::Error::Parameter(reason),
            SqlError::TooManyRows => {
                self.failed = Some("more rows than one call may return".into());
                wit::Error::Limit(wit::Limit::Rows)
            }
            SqlError::TooManyBytes => {
                self.failed = Some("more bytes than one call may return".into());
                wit::Error::Limit(wit::Limit::Bytes)
            }
            SqlError::NoSavepoint => wit::Error::NoSavepoint,
            SqlError::Deadline => return Err(TimedOut.into()),
        })
    }

    async fn run(&mut self, sql: String, params: Vec<wit::Value>) -> wasmtime::Result<Result<Rows, wit::Error>> {
        let bounds = match self.statement().await? {
            Ok(bounds) => bounds,
            Err(error) => return Ok(Err(error)),
        };
        let params = match from_guest(params) {
            Ok(params) => params,
            Err(reason) => return Ok(Err(wit::Error::Parameter(reason))),
        };
        let began = Instant::now();
        let done = self.session.query(sql, params, bounds).await;
        self.sql_time += began.elapsed();
        match done {
            Ok(rows) => {
                crash::point(Point::RunWritten);
                Ok(Ok(rows))
            }
            Err(error) => self.refuse(error).map(Err),
        }
    }

    async fn step(&mut self, step: Savepoint) -> wasmtime::Result<Result<(), wit::Error>> {
        if let Err(error) = self.enter().await {
            return Ok(Err(error));
        }
        let undo = matches!(step, Savepoint::RollbackTo(_));
        if !undo && let Err(error) = self.statement().await? {
            return Ok(Err(error));
        }
        match self.session.savepoint(step).await {
            Ok(()) => {
                if undo {
                    self.failed = None;
                }
                Ok(Ok(()))
            }
            Err(error) => self.refuse(error).map(Err),
        }
    }

    /// For `state`: none if the transaction cannot go on.
    pub(crate) async fn state(&mut self, namespace: &str, op: StateOp) -> wasmtime::Result<Option<StateReply>> {
        if self.statement().await?.is_err() {
            return Ok(None);
        }
        match self.session.state(namespace.to_owned(), op).await {
            Ok(reply) => Ok(Some(reply)),
            Err(error) => self.refuse(error).map(|_| None),
        }
    }

    /// For `outbox`: none if the transaction cannot go on.
    pub(crate) async fn publish(&mut self, events: Vec<crate::message::Event>) -> wasmtime::Result<Option<Published>> {
        if self.enter().await.is_err() || self.failed.is_some() {
            return Ok(None);
        }
        match self.session.publish(events).await {
            Ok(published) => Ok(Some(published)),
            Err(error) => self.refuse(error).map(|_| None),
        }
    }
}

fn from_guest(params: Vec<wit::Value>) -> Result<Vec<Value>, String> {
    if params.len() > MOST_PARAMETERS {
        return Err(format!("{} were given; a statement may have at most {MOST_PARAMETERS}", params.len()));
    }
    Ok(params.into_iter().map(value::from_guest).collect())
}

impl types::Host for Transaction {}

impl wit::Host for Transaction {
    async fn query(
        &mut self,
        sql: String,
        params: Vec<wit::Value>,
    ) -> wasmtime::Result<Result<wit::ResultSet, wit::Error>> {
        Ok(self.run(sql, params).await?.map(value::result_set))
    }

    async fn execute(&mut self, sql: String, params: Vec<wit::Value>) -> wasmtime::Result<Result<u64, wit::Error>> {
        Ok(self.run(sql, params).await?.map(|rows| rows.changed))
    }

    async fn execute_batch(
        &mut self,
        statements: Vec<wit::Statement>,
    ) -> wasmtime::Result<Result<Vec<u64>, (u32, wit::Error)>> {
        let mut counts = Vec::with_capacity(statements.len());
        for (place, statement) in (0..).zip(statements) {
            match self.run(statement.sql, statement.params).await? {
                Ok(rows) => counts.push(rows.changed),
                Err(error) => return Ok(Err((place, error))),
            }
        }
        Ok(Ok(counts))
    }

    async fn execute_deferred(
        &mut self,
        sql: String,
        params: Vec<wit::Value>,
    ) -> wasmtime::Result<Result<(), wit::Error>> {
        // Nothing is gained by keeping it back here; what it promises is the same.
        match self.run(sql, params).await? {
            Err(wit::Error::Database(error)) => {
                self.lost = Some(error.message);
                Ok(Ok(()))
            }
            done => Ok(done.map(|_| ())),
        }
    }

    async fn open_cursor(
        &mut self,
        sql: String,
        params: Vec<wit::Value>,
    ) -> wasmtime::Result<Result<Resource<Cursor>, wit::Error>> {
        let bounds = match self.statement().await? {
            Ok(bounds) => bounds,
            Err(error) => return Ok(Err(error)),
        };
        if self.cursors >= MOST_CURSORS {
            self.failed = Some("too many open cursors".into());
            return Ok(Err(wit::Error::Limit(wit::Limit::Cursors)));
        }
        let params = match from_guest(params) {
            Ok(params) => params,
            Err(reason) => return Ok(Err(wit::Error::Parameter(reason))),
        };
        match self.session.open_cursor(sql, params, bounds).await {
            Ok((number, columns)) => {
                self.cursors += 1;
                let columns = columns.into_iter().map(value::column).collect();
                Ok(Ok(self.table.push(Cursor { number, columns })?))
            }
            Err(error) => self.refuse(error).map(Err),
        }
    }

    async fn savepoint(&mut self, name: String) -> wasmtime::Result<Result<(), wit::Error>> {
        if self.savepoints == MOST_SAVEPOINTS || name.len() > SAVEPOINT_BYTES {
            return Ok(Err(wit::Error::Parameter(format!(
                "an attempt may set {MOST_SAVEPOINTS} savepoints, with names of at most {SAVEPOINT_BYTES} bytes"
            ))));
        }
        self.savepoints += 1;
        self.step(Savepoint::Set(name)).await
    }

    async fn rollback_to(&mut self, name: String) -> wasmtime::Result<Result<(), wit::Error>> {
        self.step(Savepoint::RollbackTo(name)).await
    }

    async fn release(&mut self, name: String) -> wasmtime::Result<Result<(), wit::Error>> {
        self.step(Savepoint::Release(name)).await
    }
}

impl wit::HostCursor for Transaction {
    async fn columns(&mut self, cursor: Resource<Cursor>) -> wasmtime::Result<Vec<wit::Column>> {
        Ok(self.table.get(&cursor)?.columns.clone())
    }

    async fn next(
        &mut self,
        cursor: Resource<Cursor>,
        max_rows: u32,
    ) -> wasmtime::Result<Result<Vec<wit::Row>, wit::Error>> {
        let number = self.table.get(&cursor)?.number;
        if let Err(error) = self.enter().await {
            return Ok(Err(error));
        }
        if self.failed.is_some() {
            return Ok(Err(wit::Error::Failed));
        }
        let bounds = Bounds { rows: max_rows.min(self.rows), bytes: RESULT_BYTES, deadline: self.deadline };
        let began = Instant::now();
        let fetched = self.session.fetch(number, bounds).await;
        self.sql_time += began.elapsed();
        match fetched {
            Ok(rows) => Ok(Ok(rows.into_iter().map(value::row).collect())),
            Err(error) => self.refuse(error).map(Err),
        }
    }

    async fn drop(&mut self, cursor: Resource<Cursor>) -> wasmtime::Result<()> {
        let cursor = self.table.delete(cursor)?;
        self.cursors -= 1;
        self.session.close_cursor(cursor.number).await;
        Ok(())
    }
}
