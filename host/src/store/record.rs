//! What is kept, as rows for people and for start-up; no rules here.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::message::{Answer, Contract, Header, State};

/// Which messages to list.
#[derive(Debug, Clone, Default)]
pub struct MessageFilter {
    /// Of this function.
    pub function: Option<String>,
    /// In this state.
    pub state: Option<State>,
    /// Older than the message with this sequence number.
    pub before: Option<i64>,
    /// At most so many.
    pub limit: u32,
}

/// A message and where it stands.
#[derive(Debug, Clone)]
pub struct MessageRecord {
    /// Place in the order of acceptance.
    pub seq: i64,
    /// Its id.
    pub id: String,
    /// The id of its event.
    pub event: String,
    /// The topic from which it was taken.
    pub topic: String,
    /// Its function.
    pub function: String,
    /// Its group key.
    pub group: Option<String>,
    /// Its priority.
    pub priority: i32,
    /// Its headers, in order.
    pub headers: Vec<Header>,
    /// Where it stands.
    pub state: State,
    /// Claims so far.
    pub attempt: u32,
    /// Of these, before the last redrive.
    pub attempts_before: u32,
    /// Version of the last claim; none before the first.
    pub version: Option<i64>,
    /// Contract of that version, or of the active one.
    pub contract: Option<Contract>,
    /// Label of that version, or of the active one.
    pub label: Option<String>,
    /// When it was accepted.
    pub created_at: Timestamp,
    /// When it is or was due.
    pub available_at: Timestamp,
    /// When it came to its final state.
    pub completed_at: Option<Timestamp>,
    /// Until when its claim holds.
    pub lease_until: Option<Timestamp>,
    /// Kind and text of the last failure.
    pub last_error: Option<(String, String)>,
    /// What the handler answered.
    pub answer: Option<Answer>,
}

/// One attempt at a message.
#[derive(Debug, Clone, Serialize)]
pub struct AttemptRecord {
    /// From 1.
    pub attempt: u32,
    /// Fence of its claim.
    pub fence: i64,
    /// Version that ran.
    pub version: i64,
    /// Random id of the host.
    pub host: String,
    /// When it was claimed.
    pub claimed_at: Timestamp,
    /// When the guest's code began to run.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// How it ended; `running` if it has not.
    pub outcome: String,
    /// For people.
    pub error: Option<String>,
    /// Fuel used, where it could be measured.
    pub fuel: Option<u64>,
    /// SQL statements.
    pub statements: u32,
    /// Time in them, in microseconds.
    pub sql_micros: i64,
    /// Messages published.
    pub published: u32,
    /// Lines logged.
    pub logs: Vec<LogRecord>,
    /// Lines not kept.
    pub logs_dropped: u32,
}

/// What a person decided about a message.
#[derive(Debug, Clone, Serialize)]
pub struct DecisionRecord {
    /// When.
    pub at: Timestamp,
    /// `redriven`, `resolved` or `cancelled`.
    pub decision: String,
    /// Where it stood before, and what became of it.
    pub detail: String,
}

/// One logged line.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LogRecord {
    /// When.
    pub at: Timestamp,
    /// Level.
    pub level: String,
    /// Text.
    pub message: String,
    /// Fields, in order.
    pub fields: Vec<(String, String)>,
}

/// How many messages of a function stand where.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Counts {
    /// The function.
    #[serde(skip)]
    pub function: String,
    /// Per state.
    pub available: u64,
    /// Per state.
    pub running: u64,
    /// Per state.
    pub completed: u64,
    /// Per state.
    pub dead: u64,
    /// Per state.
    pub in_doubt: u64,
    /// Per state.
    pub cancelled: u64,
    /// Claims in all.
    pub attempts: u64,
    /// Commits that the fence refused.
    #[serde(rename = "refused_commits")]
    pub refused_commits: u64,
}

/// How many messages of a function are in a state that somebody may have to look after.
#[derive(Debug, Clone)]
pub struct Depth {
    /// The function.
    pub function: String,
    /// `available`, `running`, `dead` or `in-doubt`.
    pub state: State,
    /// How many.
    pub messages: u64,
    /// For `available`: how long the one that is due for longest has been due. None if none is due.
    pub oldest_due: Option<Duration>,
}

/// One line of `semel doctor`.
#[derive(Debug, Clone, Serialize)]
pub struct Fact {
    /// What it is about: `host`, `database` or `wall`.
    pub about: &'static str,
    /// What was looked at.
    pub name: String,
    /// What was found.
    pub value: String,
    /// `ok` or `attention`.
    pub verdict: &'static str,
    /// What to do; none if all is well.
    pub advice: Option<String>,
}

impl Fact {
    /// A fact that is well if there is no advice.
    #[must_use]
    pub fn new(about: &'static str, name: impl Into<String>, value: impl Into<String>, advice: Option<String>) -> Self {
        let verdict = if advice.is_none() { "ok" } else { "attention" };
        Self { about, name: name.into(), value: value.into(), verdict, advice }
    }
}
