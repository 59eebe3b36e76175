//! What the engine wants from a database: whole operations, never statements.
//!
//! Before it: [`crate::api`] accepted a request. After it: [`crate::worker`] claims what is here. A backend decides
//! nothing (see [`crate::settle`]); it keeps promises, each named at its method. Nothing above this module knows which
//! database it talks to. The backends: `store/sqlite.rs`, `store/postgres.rs`,
//! `store/mysql.rs`.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::clock::Timestamp;
use crate::crash;
use crate::flow::Rate;
use crate::message::{Claim, Claimed, Contract, Event, Message, Usage};

mod accept;
mod catalog;
mod cron;
mod decide;
mod error;
mod logins;
mod mysql;
mod postgres;
mod ledger;
mod record;
mod session;
mod sqlite;
mod steering;
mod value;

pub use accept::{Accept, Enqueued, Key, Remember, Target};
pub use catalog::{Activation, Catalog, Deployed, Deployment, FunctionRecord, VersionRecord};
pub use cron::{Fired, Firing, ScheduleRecord, Timetable};
pub use error::{DatabaseError, Error, SqlError};
pub use ledger::{
    Call, CallEnd, CallFilter, CallId, CallRecord, CallState, Happened, Intent, Ledger, by_call, happened,
};
pub use logins::{AppLogins, Login, Logins};
pub use record::{AttemptRecord, Counts, DecisionRecord, Depth, Fact, LogRecord, MessageFilter, MessageRecord};
pub use session::{Answered, Bounds, Published, Savepoint, Session, StateOp, StateReply, Wanted};
pub use steering::{Decided, Retention, Steering};
pub use value::{Column, Rows, Value};

/// Everything a host needs from its database.
pub trait Store: Queue + Catalog + Timetable + Records + Steering + Ledger {}

impl<T: Queue + Catalog + Timetable + Records + Steering + Ledger> Store for T {}

/// Opens the store that `url` names, creating and migrating it where that is safe, and begins a new epoch in it.
///
/// # Errors
/// Says which part of the URL or of the database is not usable, and what to do about it.
pub async fn open(url: &str) -> Result<Arc<dyn Store>, Error> {
    open_with(url, Logins::new()).await
}

/// The same, with logins that a person made for some of its apps.
///
/// # Errors
/// As [`open`]; and if the database has no logins.
pub async fn open_with(url: &str, logins: Logins) -> Result<Arc<dyn Store>, Error> {
    Ok(match database(url)? {
        Database::Sqlite(path) => {
            no_logins(&logins)?;
            Arc::new(sqlite::Sqlite::open(path).await?)
        }
        Database::Postgres | Database::Mysql if crash::takes_power() => {
            return Err(Error::Refused(
                "SEMEL_CRASH asks for a loss of power, but the disk is the database server's: use `kill`, or an SQLite \
                 file"
                    .into(),
            ));
        }
        Database::Postgres => Arc::new(postgres::Postgres::open(url, logins).await?),
        Database::Mysql => Arc::new(mysql::Mysql::open(url, logins).await?),
    })
}

/// What [`migrate`] is asked for.
#[derive(Debug, Clone, Default)]
pub struct Migration {
    /// Logins that a person made for some apps.
    pub logins: Logins,
    /// Apps to prepare, beside those that are known already.
    pub apps: Vec<String>,
    /// The database's URL with a superuser's login, who closes what only a superuser can.
    pub superuser: Option<String>,
}

/// Brings a database up to date without serving it: schema, roles, schemas of apps. Harmless to repeat. Returns what was done
/// and which walls stand after.
///
/// # Errors
/// As [`open_with`]; or the database does not let this login do that.
pub async fn migrate(url: &str, wanted: Migration) -> Result<Vec<Fact>, Error> {
    match database(url)? {
        Database::Sqlite(path) => {
            no_logins(&wanted.logins)?;
            if wanted.superuser.is_some() || !wanted.apps.is_empty() {
                return Err(Error::Refused("an SQLite file has no roles: there is nothing to do for apps".into()));
            }
            let facts = sqlite::Sqlite::open(path).await?.health().await?;
            Ok(facts.into_iter().filter(|fact| fact.name == "schema version" || fact.about == "wall").collect())
        }
        Database::Postgres => postgres::migrate(url, wanted).await,
        Database::Mysql => mysql::migrate(url, wanted).await,
    }
}

enum Database<'a> {
    Sqlite(&'a str),
    Postgres,
    /// MariaDB too.
    Mysql,
}

fn database(url: &str) -> Result<Database<'_>, Error> {
    match url.split_once(':') {
        Some(("sqlite", path)) => Ok(Database::Sqlite(path.trim_start_matches("//"))),
        Some(("postgres" | "postgresql", _)) => Ok(Database::Postgres),
        Some(("mysql" | "mariadb", _)) => Ok(Database::Mysql),
        // The scheme alone: a URL may hold a password.
        Some((scheme, _)) => Err(Error::Refused(format!(
            "this version does not know databases of the kind \"{scheme}:\"; write sqlite://PATH, \
             postgres://USER:PASSWORD@HOST/NAME or mysql://USER:PASSWORD@HOST/NAME"
        ))),
        None => Err(Error::Refused(format!("the database \"{url}\" is no URL; write sqlite://PATH"))),
    }
}

fn no_logins(logins: &Logins) -> Result<(), Error> {
    if logins.is_empty() {
        return Ok(());
    }
    Err(Error::Refused(
        "[apps] names logins, but an SQLite file has none: take them out, or use Postgres, MariaDB or \
                              MySQL"
            .into(),
    ))
}

/// Whether the database is a server's, which any number of hosts share.
#[must_use]
pub fn is_shared(url: &str) -> bool {
    matches!(database(url), Ok(Database::Postgres | Database::Mysql))
}

/// A claim that has no end on record yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// The message's id.
    pub message: String,
    /// Which attempt at it.
    pub attempt: u32,
    /// Random id of the host that claimed it.
    pub host: String,
}

/// How many rows say `running` in a database that no host holds: what a killed host was working on.
///
/// # Errors
/// If the database cannot be read.
pub async fn held(url: &str) -> anyhow::Result<Vec<Held>> {
    match database(url)? {
        Database::Sqlite(path) => sqlite::held(path).await,
        Database::Postgres => postgres::held(url).await,
        Database::Mysql => mysql::held(url).await,
    }
}

/// The queue: from acceptance to settlement.
#[async_trait]
pub trait Queue: Send + Sync {
    /// The store's clock.
    async fn now(&self) -> Result<Timestamp, Error>;

    /// Puts events into the queue, all of them in one commit: each becomes one message per subscribed function, or one for
    /// the function it names. Durable when it returns; one answer for each, in order. What comes first in the list comes first
    /// in its group, and counts for those after it: against the backlog, and by its key. With a key, the second event with the
    /// same key and fingerprint changes nothing and gets the first one's message. Messages of a group wait for each other
    /// where the function asks for it. An error is one for all: nothing of the list is there.
    async fn enqueue_all(&self, list: Arc<[Accept]>) -> Result<Vec<Enqueued>, Error>;

    /// The same for one event alone.
    async fn enqueue(&self, event: Event, target: Target, key: Option<Key>) -> Result<Enqueued, Error> {
        let answers = self.enqueue_all([Accept { event, target, key }].into()).await?;
        answers.into_iter().next().ok_or_else(|| Error::Broken("the store did not answer".into()))
    }

    /// Claims due messages, in one commit: attempt and fence count up, each gets a lease and the token of this call.
    async fn claim(&self, request: ClaimRequest) -> Result<Vec<Claimed>, Error>;

    /// Marks a begin-once message as begun and renews its lease, in a commit of its own. False if the claim no longer holds
    /// or it was begun before: then it must not start.
    async fn begin(&self, claim: &Claim) -> Result<bool, Error>;

    /// Renews the leases of claims that still hold, and returns `seq` and fence of those that do not.
    async fn heartbeat(&self, claims: Vec<Claim>) -> Result<Vec<(i64, i64)>, Error>;

    /// Frees what dead hosts left behind. Periodic and idempotent: claims of an older epoch, and those whose lease had
    /// ended `as_of` (a time of this store's clock, not in the future), become available as suspects, dead when their
    /// attempts are used up, or in-doubt when they were begun. Says whether suspects of these functions are waiting.
    async fn recover(&self, as_of: Timestamp, functions: Vec<String>) -> Result<Recovered, Error>;

    /// Records the end of a run that did not commit: available again, or dead. False if the claim no longer holds.
    async fn settle(&self, claim: &Claim, end: Failure, usage: Usage) -> Result<bool, Error>;

    /// Finds out what became of a commit whose answer was lost: the only way from unknown to known.
    async fn resolve(&self, claim: &Claim) -> Result<Known, Error>;

    /// Ends the statement that a run in this process is in, and those it still begins. A wish: what makes sure is the
    /// fence.
    fn interrupt(&self, claim: &Claim);

    /// A transaction for messages of one function version; nothing is opened yet.
    fn session(&self) -> Box<dyn Session>;

    /// The same for a claim that nobody holds, behind the same walls: its commit rolls back.
    fn rehearsal(&self) -> Box<dyn Session>;

    /// Returns when there may be something to claim, or after `longest`.
    async fn wait(&self, longest: Duration);
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
    /// At most so many of it: what this host has room for.
    pub limit: u32,
    /// At most so many running at once on all hosts. Where one host is all of them, `limit` has said it.
    pub concurrency: Option<u32>,
    /// At most so many per time, whoever claims them.
    pub rate: Option<Rate>,
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
    /// The answer was lost. Only [`Queue::resolve`] turns this into something [`Known`].
    Unknown,
}

/// What became of a commit, if that is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Known {
    /// As [`Commit::Committed`].
    Committed,
    /// As [`Commit::Fenced`].
    Fenced,
    /// As [`Commit::RolledBack`].
    RolledBack,
}

impl Commit {
    /// What is known of it. For none there is [`Queue::resolve`], and no other way.
    #[must_use]
    pub fn known(self) -> Option<Known> {
        match self {
            Self::Committed => Some(Known::Committed),
            Self::Fenced => Some(Known::Fenced),
            Self::RolledBack => Some(Known::RolledBack),
            Self::Unknown => None,
        }
    }
}

/// What people ask about.
#[async_trait]
pub trait Records: Send + Sync {
    /// One message with its state.
    async fn message(&self, id: &str) -> Result<Option<MessageRecord>, Error>;

    /// A message as it was accepted.
    async fn original(&self, id: &str) -> Result<Option<Message>, Error>;

    /// A page of messages, newest first.
    async fn messages(&self, filter: MessageFilter) -> Result<Vec<MessageRecord>, Error>;

    /// The attempts at one message, oldest first.
    async fn attempts(&self, id: &str) -> Result<Vec<AttemptRecord>, Error>;

    /// What people decided about one message, oldest first.
    async fn decisions(&self, id: &str) -> Result<Vec<DecisionRecord>, Error>;

    /// How many messages stand where, per function.
    async fn counts(&self) -> Result<Vec<Counts>, Error>;

    /// What waits, runs, or needs a decision, per function; of one that was removed only what waits or runs. Takes time in
    /// proportion to the queue, not to the history.
    async fn depths(&self) -> Result<Vec<Depth>, Error>;

    /// Writes something and takes it back, durably: succeeds if a message could be accepted now.
    async fn check(&self) -> Result<(), Error>;

    /// What `semel doctor` prints of the database and of the walls, each looked at now.
    async fn health(&self) -> Result<Vec<Fact>, Error>;
}
