//! What the engine wants from a database: whole operations, never statements.
//!
//! Before it: [`crate::api`] accepted a request. After it: [`crate::worker`] claims what is here. A backend decides
//! nothing (see [`crate::settle`]); it keeps promises, each named at its method. Nothing above this module knows which
//! database it talks to. One backend so far: `store/sqlite.rs`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;

use crate::clock::Timestamp;
use crate::message::{Answer, Claim, Claimed, Contract, Event, Usage};

mod error;
mod record;
mod sqlite;
mod value;

pub use error::{DatabaseError, Error, SqlError};
pub use record::{
    AttemptRecord, Counts, Deployment, FunctionRecord, LogRecord, MessageFilter, MessageRecord, VersionRecord,
};
pub use value::{Column, Rows, Value};

/// Everything a host needs from its database.
pub trait Store: Queue + Catalog + Records {}

impl<T: Queue + Catalog + Records> Store for T {}

/// Opens the store that `url` names, creating and migrating it where that is safe, and begins a new epoch in it.
///
/// # Errors
/// Says which part of the URL or of the database is not usable, and what to do about it.
pub async fn open(url: &str) -> Result<Arc<dyn Store>, Error> {
    match url.split_once(':') {
        Some(("sqlite", path)) => Ok(Arc::new(sqlite::Sqlite::open(path.trim_start_matches("//")).await?)),
        // The scheme alone: a URL may hold a password.
        Some((scheme, _)) => Err(Error::Refused(format!(
            "this version does not know databases of the kind \"{scheme}:\"; write sqlite://PATH"
        ))),
        None => Err(Error::Refused(format!("the database \"{url}\" is no URL; write sqlite://PATH"))),
    }
}

/// How many rows say `running` in a database that no host holds: what a killed host was working on.
///
/// # Errors
/// If the database cannot be read.
pub async fn running_after_crash(url: &str) -> anyhow::Result<u64> {
    sqlite::running_after_crash(url.trim_start_matches("sqlite:").trim_start_matches("//")).await
}

/// The queue: from acceptance to settlement.
#[async_trait]
pub trait Queue: Send + Sync {
    /// The store's clock.
    async fn now(&self) -> Result<Timestamp, Error>;

    /// Puts an event into the queue: one message per subscribed function, or one for the function it names. Durable
    /// when it returns. With a key, the second call with the same key and fingerprint changes nothing and returns the
    /// first one's message.
    async fn enqueue(&self, event: Event, target: Target, key: Option<Key>) -> Result<Enqueued, Error>;

    /// Claims due messages, in one commit: attempt and fence count up, each gets a lease and the token of this call.
    async fn claim(&self, request: ClaimRequest) -> Result<Vec<Claimed>, Error>;

    /// Marks a begin-once message as begun, in a commit of its own. False if the claim no longer holds or it was
    /// begun before: then it must not start.
    async fn begin(&self, claim: &Claim) -> Result<bool, Error>;

    /// Renews the leases of claims that still hold, and returns the `seq` of those that do not.
    async fn heartbeat(&self, claims: Vec<Claim>) -> Result<Vec<i64>, Error>;

    /// Frees what dead hosts left behind. Periodic and idempotent: claims of an older epoch, and those whose lease had
    /// ended `as_of` (a time of this store's clock, not in the future), become available as suspects, dead when their
    /// attempts are used up, or in-doubt when they were begun. Says whether suspects of these functions are waiting.
    async fn recover(&self, as_of: Timestamp, functions: Vec<String>) -> Result<Recovered, Error>;

    /// Records the end of a run that did not commit: available again, or dead. False if the claim no longer holds.
    async fn settle(&self, claim: &Claim, end: Failure, usage: Usage) -> Result<bool, Error>;

    /// Finds out what became of a commit whose answer was lost: the only way from unknown to known.
    async fn resolve(&self, claim: &Claim) -> Result<Commit, Error>;

    /// A transaction for messages of one function version; nothing is opened yet.
    fn session(&self) -> Box<dyn Session>;

    /// Returns when there may be something to claim, or after `longest`.
    async fn wait(&self, longest: Duration);
}

/// Whom an event is for.
#[derive(Debug, Clone)]
pub enum Target {
    /// One function, whether or not it subscribes to anything.
    Function(String),
    /// All that subscribe to the event's topic.
    Subscribers,
}

/// An idempotency key in the scope of one function.
#[derive(Debug, Clone)]
pub struct Key {
    /// As the sender wrote it.
    pub key: String,
    /// SHA-256 over what the sender meant.
    pub fingerprint: Vec<u8>,
    /// How long it is remembered; none is forever.
    pub window: Option<Duration>,
}

/// What became of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Enqueued {
    /// In the queue; the ids of its messages.
    Accepted(Vec<String>),
    /// The key was used for the same before; the id of that message.
    Duplicate(String),
    /// The key was used for something else.
    KeyReused,
    /// Nobody would handle it: no such function, no subscriber.
    NoTarget,
}

/// What to claim.
#[derive(Debug, Clone)]
pub struct ClaimRequest {
    /// One per function, most urgent first.
    pub lanes: Vec<Lane>,
    /// At most so many in all.
    pub limit: u32,
    /// Only messages whose last claim ended without a record, or only others.
    pub suspects: bool,
    /// Who claims; for people.
    pub host: String,
}

/// What a claim needs to know of a function version.
#[derive(Debug, Clone)]
pub struct Lane {
    /// The function.
    pub function: String,
    /// The version that will run.
    pub version: i64,
    /// The contract under which it is claimed.
    pub contract: Contract,
    /// When recovery gives up.
    pub max_attempts: u32,
    /// Visibility timeout.
    pub lease: Duration,
    /// At most so many of it.
    pub limit: u32,
}

/// What recovery found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Available again.
    pub freed: u64,
    /// Dead, attempts used up.
    pub dead: u64,
    /// In-doubt.
    pub in_doubt: u64,
    /// Whether suspects of the functions asked about are waiting, from now or before.
    pub suspects: bool,
}

/// The end of a run that did not commit.
#[derive(Debug, Clone)]
pub struct Failure {
    /// The outcome's name.
    pub kind: &'static str,
    /// For people.
    pub message: String,
    /// Retry after this time, or dead.
    pub retry_after: Option<Duration>,
}

/// What became of a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Commit {
    /// Effects and acknowledgement are durable.
    Committed,
    /// The claim no longer held; nothing was changed.
    Fenced,
    /// The database did not take it; nothing was changed.
    RolledBack,
    /// The answer was lost. Only [`Queue::resolve`] may turn this into one of the others.
    Unknown,
}

/// One transaction and the task that owns its connection: the handle is lent to guests, one after another. Dropping it
/// rolls back. Between `enter` and `leave` all calls work for that claim.
#[async_trait]
pub trait Session: Send {
    /// The next guest call works for this claim.
    fn enter(&mut self, claim: &Claim);

    /// Waits for a turn and opens the transaction, if it is not open. Waiting is not the guest's time.
    async fn open(&mut self) -> Result<(), Error>;

    /// Runs one guest statement and returns its rows, within the bounds.
    async fn query(&mut self, sql: String, params: Vec<Value>, bounds: Bounds) -> Result<Rows, SqlError>;

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

/// Deployed functions, kept in the database since all hosts share them.
#[async_trait]
pub trait Catalog: Send + Sync {
    /// The secret from which pinned randomness and idempotency keys are derived.
    fn secret(&self) -> [u8; 32];

    /// Applies new app migrations, stores component and version, and makes the version active: one commit. Returns the
    /// number of the version; deploying what is active already returns its number and changes nothing.
    async fn deploy(&self, deployment: Deployment) -> Result<i64, Error>;

    /// The active version of every function.
    async fn functions(&self) -> Result<Vec<FunctionRecord>, Error>;

    /// The bytes of a component.
    async fn component(&self, digest: &str) -> Result<Option<Vec<u8>>, Error>;
}

/// What people ask about.
#[async_trait]
pub trait Records: Send + Sync {
    /// One message with its state.
    async fn message(&self, id: &str) -> Result<Option<MessageRecord>, Error>;

    /// A page of messages, newest first.
    async fn messages(&self, filter: MessageFilter) -> Result<Vec<MessageRecord>, Error>;

    /// The attempts at one message, oldest first.
    async fn attempts(&self, id: &str) -> Result<Vec<AttemptRecord>, Error>;

    /// How many messages stand where, per function.
    async fn counts(&self) -> Result<Vec<Counts>, Error>;

    /// What `semel doctor` prints: name, value, and what to do if it is not well.
    async fn health(&self) -> Result<Vec<(String, String, Option<String>)>, Error>;
}
