//! The transaction that is lent to guests, and what they may do in it.

use std::time::Instant;

use async_trait::async_trait;
use futures_util::future::BoxFuture;

use super::{Column, Commit, Error, Rows, SqlError, Value};
use crate::message::{Answer, Claim, Event, Usage};

/// One transaction and the task that owns its connection: the handle is lent to guests, one after another. Dropping it
/// rolls back. Between `enter` and `leave` all calls work for that claim.
#[async_trait]
pub trait Session: Send {
    /// The transaction is going to be that of these claims, of one function version and one call of `claim`. To be said before
    /// the first of them is entered, if there are several.
    fn share(&mut self, _: &[&Claim]) {}

    /// The next guest call works for this claim.
    fn enter(&mut self, claim: &Claim);

    /// Waits for a turn and opens the transaction, if it is not open. Waiting is not the guest's time.
    async fn open(&mut self) -> Result<(), Error>;

    /// Runs one guest statement and returns its rows, within the bounds.
    async fn query(&mut self, sql: String, params: Vec<Value>, bounds: Bounds) -> Result<Rows, SqlError>;

    /// Begins one guest statement: what comes back first says that it was sent, or why not, and the answer to it comes later.
    /// Whatever is asked afterwards is done afterwards. Once one has failed, so have those that were sent after it.
    async fn send(
        &mut self,
        sql: String,
        params: Vec<Value>,
        bounds: Bounds,
        wanted: Wanted,
    ) -> Result<Answered, SqlError> {
        let _ = wanted; // Here all is known at once.
        let rows = self.query(sql, params, bounds).await?;
        Ok(Box::pin(std::future::ready(Ok(rows))))
    }

    /// Prepares one guest statement whose rows are fetched as needed; a number for the next two calls, and columns.
    async fn open_cursor(
        &mut self,
        sql: String,
        params: Vec<Value>,
        bounds: Bounds,
    ) -> Result<(u32, Vec<Column>), SqlError>;

    /// Up to `bounds.rows` further rows; none at the end.
    async fn fetch(&mut self, cursor: u32, bounds: Bounds) -> Result<Vec<Vec<Value>>, SqlError>;

    /// Frees a cursor.
    async fn close_cursor(&mut self, cursor: u32);

    /// Sets, undoes to, or forgets a guest's savepoint.
    async fn savepoint(&mut self, step: Savepoint) -> Result<(), SqlError>;

    /// One operation on the key-value store of a namespace.
    async fn state(&mut self, namespace: String, op: StateOp) -> Result<StateReply, SqlError>;

    /// Puts events into the queue as part of the transaction; all or none.
    async fn publish(&mut self, events: Vec<Event>) -> Result<Published, SqlError>;

    /// The claim entered last has done its part; `answer` and `usage` are kept with the acknowledgement.
    fn leave(&mut self, answer: Option<Answer>, usage: Usage);

    /// Acknowledges every claim that was left, as the last statement, and commits: all or nothing. This is the only
    /// call in the program that makes a guest's effects visible, and it checks the fence.
    async fn commit(self: Box<Self>) -> Commit;

    /// Undoes everything and gives the connection back.
    async fn rollback(self: Box<Self>);
}

/// The answer to a statement that was sent. It may be dropped: the statement runs all the same.
pub type Answered = BoxFuture<'static, Result<Rows, SqlError>>;

/// What is asked of an answer that comes later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// Its rows. Some types' values cannot be told without asking again: then it is doomed.
    Rows,
    /// How many rows it changed.
    Count,
}

/// How far one statement may go.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Rows returned.
    pub rows: u32,
    /// Bytes returned.
    pub bytes: usize,
    /// When it is interrupted.
    pub deadline: Instant,
}

/// A step of a guest's savepoints.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the functions of the same names in wit/transaction.wit")]
pub enum Savepoint {
    Set(String),
    RollbackTo(String),
    Release(String),
}

/// An operation of `wit/state.wit`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the functions of the same names in wit/state.wit")]
pub enum StateOp {
    Get { key: String },
    Set { key: String, value: Vec<u8> },
    Delete { key: String },
    Add { key: String, delta: i64 },
    Scan { prefix: String, after: Option<String>, limit: u32 },
}

/// The answer to a [`StateOp`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StateReply {
    /// Done; for `Set`.
    Done,
    /// For `Get`.
    Value(Option<Vec<u8>>),
    /// For `Delete`: whether it was there.
    Deleted(bool),
    /// For `Add`: the sum.
    Sum(i64),
    /// For `Add`: the value is no counter, or the sum is out of range.
    NotACounter,
    /// For `Scan`.
    Entries(Vec<(String, Vec<u8>)>),
}

/// What became of published events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Published {
    /// All are part of the transaction.
    Done,
    /// Nobody subscribes to this topic; none was taken.
    UnknownTopic(String),
}
