//! `transaction`: SQL inside the transaction of the current message.
//!
//! The transaction is opened on the first call. What the WIT promises on every database is kept here: a failed
//! statement fails the transaction until `rollback-to`, a doomed one cannot be saved, a forbidden one cannot be
//! hidden. [`Transaction::verdict`] is what stands against a commit, whatever the guest returns.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use wasmtime::component::ResourceTable;

use super::bindings::semel::function::transaction as wit;
use super::bindings::semel::function::types;
use super::log::cut;
use super::value;
use crate::crash::{self, Point};
use crate::engine::limits::{MOST_CURSORS, MOST_PARAMETERS, REASON_BYTES, RESULT_BYTES};
use crate::manifest::Limits;
use crate::store::{
    self, Answered, Bounds, Published, Rows, Savepoint, Session, SqlError, StateOp, StateReply, Value, Wanted,
};

mod calls;

/// Deferred statements that may be without an answer, and bytes of their texts and parameters.
const UNANSWERED: usize = 64;
const UNANSWERED_BYTES: usize = 256 << 10;

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
    /// Answers of deferred statements that are still to come, and how many bytes these statements have.
    deferred: VecDeque<Answered>,
    deferred_bytes: usize,
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
            deferred: VecDeque::new(),
            deferred_bytes: 0,
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

    /// Waits for what was deferred. Where one failed the attempt cannot succeed, whatever is undone.
    pub(crate) async fn settle(&mut self) -> wasmtime::Result<()> {
        let began = Instant::now();
        while let Some(answer) = self.deferred.pop_front() {
            let answer = answer.await;
            self.found(answer)?;
        }
        self.deferred_bytes = 0;
        self.sql_time += began.elapsed();
        Ok(())
    }

    /// What a deferred statement has come to.
    fn found(&mut self, answer: Result<Rows, SqlError>) -> wasmtime::Result<()> {
        match answer {
            Ok(_) => written(),
            Err(SqlError::Database(error)) => {
                self.failed.get_or_insert_with(|| error.message.clone());
                self.lost.get_or_insert(error.message); // Of the first: those after it fail because of it.
            }
            Err(error) => drop(self.refuse(error)?),
        }
        Ok(())
    }

    /// Before a statement that waits for those before it: open, not failed, within its limits.
    async fn statement(&mut self) -> wasmtime::Result<Result<Bounds, wit::Error>> {
        self.settle().await?;
        self.next_statement().await
    }

    /// Before a statement that goes behind those before it.
    async fn next_statement(&mut self) -> wasmtime::Result<Result<Bounds, wit::Error>> {
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

    /// That, and a statement's parameters.
    async fn ready(&mut self, params: Vec<wit::Value>) -> wasmtime::Result<Result<(Bounds, Vec<Value>), wit::Error>> {
        Ok(match self.next_statement().await? {
            Ok(bounds) => from_guest(params).map(|params| (bounds, params)).map_err(wit::Error::Parameter),
            Err(error) => Err(error),
        })
    }

    async fn run(&mut self, sql: String, params: Vec<wit::Value>) -> wasmtime::Result<Result<Rows, wit::Error>> {
        let (bounds, params) = match self.ready(params).await? {
            Ok(ready) => ready,
            Err(error) => return Ok(Err(error)),
        };
        let began = Instant::now();
        let done = self.session.query(sql, params, bounds).await;
        self.sql_time += began.elapsed();
        self.settle().await?; // Answered by now: they were sent before.
        match done {
            Ok(_) | Err(SqlError::Database(_)) if self.failed.is_some() => Ok(Err(wit::Error::Failed)),
            Ok(rows) => {
                written();
                Ok(Ok(rows))
            }
            Err(error) => self.refuse(error).map(Err),
        }
    }

    /// Sends a statement of which only the count is wanted, some time.
    async fn send(&mut self, sql: String, params: Vec<wit::Value>) -> wasmtime::Result<Result<Sent, wit::Error>> {
        let (bounds, params) = match self.ready(params).await? {
            Ok(ready) => ready,
            Err(error) => return Ok(Err(error)),
        };
        self.deferred_bytes += sql.len() + params.iter().map(Value::size).sum::<usize>();
        let began = Instant::now();
        let sent = self.session.send(sql, params, bounds, Wanted::Count).await;
        self.sql_time += began.elapsed();
        Ok(Ok(sent))
    }

    async fn step(&mut self, step: Savepoint) -> wasmtime::Result<Result<(), wit::Error>> {
        self.settle().await?;
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
        self.settle().await?;
        if self.enter().await.is_err() || self.failed.is_some() {
            return Ok(None);
        }
        match self.session.publish(events).await {
            Ok(published) => Ok(Some(published)),
            Err(error) => self.refuse(error).map(|_| None),
        }
    }
}

/// A statement has done what it does.
fn written() {
    crash::point(Point::RunWritten);
}

/// The answer to come, or why there is none.
type Sent = Result<Answered, SqlError>;

fn from_guest(params: Vec<wit::Value>) -> Result<Vec<Value>, String> {
    if params.len() > MOST_PARAMETERS {
        return Err(format!("{} were given; a statement may have at most {MOST_PARAMETERS}", params.len()));
    }
    Ok(params.into_iter().map(value::from_guest).collect())
}
