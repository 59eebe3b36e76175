//! The vocabulary: what flows through the host, without any I/O.
//!
//! An *event* is what somebody sent or published. It becomes one *message* per subscribed function. A worker takes a
//! message by a *claim*; the claim makes one *attempt*, the run ends with an *outcome*, and [`crate::settle`] turns
//! the outcome into a settlement.

use std::time::Duration;

use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::clock::Timestamp;

/// Name and value. Names are compared without regard to ASCII case, may repeat, and keep their order.
pub type Header = (String, String);

/// Which half of the impossible promise a function is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Contract {
    /// Started again until it has finished: at-least-once execution, exactly-once transactional effects.
    #[default]
    FinishOnce,
    /// Marked as begun before it starts, and never started again: at most once.
    BeginOnce,
}

impl Contract {
    /// The name used in manifests, the database and every listing.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::FinishOnce => "finish-once",
            Self::BeginOnce => "begin-once",
        }
    }

    /// The contract of this name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        [Self::FinishOnce, Self::BeginOnce].into_iter().find(|contract| contract.as_str() == name)
    }
}

/// Where a message stands. There are no others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// Waiting to be claimed, from its due time on.
    Available,
    /// Claimed; its lease has not been taken over.
    Running,
    /// Its effects and its acknowledgement were committed, together.
    Completed,
    /// Given up, with a reason.
    Dead,
    /// Begin-once, begun, and without a recorded end: a person decides.
    InDoubt,
    /// Taken back by a person.
    Cancelled,
}

impl State {
    /// Every state, in the order of a message's life.
    pub const ALL: [Self; 6] =
        [Self::Available, Self::Running, Self::Completed, Self::Dead, Self::InDoubt, Self::Cancelled];

    /// The name used in the database and every listing.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Available => "available",
            Self::Running => "running",
            Self::Completed => "completed",
            Self::Dead => "dead",
            Self::InDoubt => "in-doubt",
            Self::Cancelled => "cancelled",
        }
    }

    /// The state of this name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == name)
    }

    /// Whether a person may put the message back into the queue.
    #[must_use]
    pub fn can_be_redriven(self) -> bool {
        matches!(self, Self::Dead | Self::InDoubt | Self::Cancelled)
    }

    /// Whether nothing more happens to the message by itself.
    #[must_use]
    pub fn is_final(self) -> bool {
        !matches!(self, Self::Available | Self::Running)
    }
}

/// What was sent or published, before it is in the queue.
#[derive(Debug, Clone, Default)]
pub struct Event {
    /// Unique in this installation; the ids of its messages are derived from it.
    pub id: String,
    /// The topic it is for; `fn/NAME` for one function alone.
    pub topic: String,
    /// Messages of one group are handled in order where the function asks for it.
    pub group: Option<String>,
    /// Media type of the body.
    pub content_type: Option<String>,
    /// Headers of the producer and of the host.
    pub headers: Vec<Header>,
    /// The payload, byte for byte.
    pub body: Vec<u8>,
    /// Higher goes first.
    pub priority: i32,
    /// How long after acceptance it is due.
    pub delay: Duration,
}

/// One message as it was accepted: never changed afterwards.
#[derive(Debug, Clone)]
pub struct Message {
    /// Derived from the event and the function, see [`message_id`].
    pub id: String,
    /// The event's id.
    pub event: String,
    /// The function it is for.
    pub function: String,
    /// The topic from which it was taken.
    pub topic: String,
    /// Its group key.
    pub group: Option<String>,
    /// Media type of the body.
    pub content_type: Option<String>,
    /// Headers, in order.
    pub headers: Vec<Header>,
    /// When the queue accepted it, by the store's clock.
    pub accepted_at: Timestamp,
    /// The payload.
    pub body: Vec<u8>,
}

/// The id of the message that an event becomes for one function: 32 hexadecimal digits, equal whenever it is derived
/// again, so a fan-out that is repeated makes no second message.
#[must_use]
pub fn message_id(event: &str, function: &str) -> String {
    derive("semel message", &[event, function])
}

/// The id of the `ordinal`-th event (from 0) that a run published while it handled a message: equal on every attempt.
#[must_use]
pub fn published_event_id(message: &str, ordinal: u32) -> String {
    derive("semel event", &[message, &ordinal.to_string()])
}

/// The same of the `ordinal`-th request that a run deferred.
#[must_use]
pub fn deferred_event_id(message: &str, ordinal: u32) -> String {
    derive("semel deferred", &[message, &ordinal.to_string()])
}

/// What stands for a schedule of a function, whatever version has it: of when it fires, where, and what it says.
#[must_use]
pub fn schedule_key(said: [&str; 3]) -> String {
    derive("semel schedule", &said)
}

/// The `Idempotency-Key` of the `ordinal`-th outside call (from 0) of a message, where the guest sets none: 32
/// hexadecimal digits, equal on every attempt, and unknown to whoever does not know the installation's secret.
#[must_use]
pub fn call_key(secret: &[u8; 32], message: &str, ordinal: u32) -> String {
    hex::encode(&keyed(secret, "semel outside call", &[message, &ordinal.to_string()])[..16])
}

/// HMAC-SHA-256 of the installation's secret over the length-prefixed parts: the root of everything that is equal on every
/// attempt and that nobody else can compute.
#[must_use]
pub fn keyed(secret: &[u8; 32], purpose: &str, parts: &[&str]) -> [u8; 32] {
    let mut block = [0; 64]; // HMAC pads a shorter key with zeros to one block of the hash.
    block[..32].copy_from_slice(secret);
    let mut mac = <Hmac<Sha256> as KeyInit>::new(&block.into());
    for part in std::iter::once(&purpose).chain(parts) {
        mac.update(&(part.len() as u64).to_be_bytes());
        mac.update(part.as_bytes());
    }
    mac.finalize().into_bytes().into()
}

/// The first 128 bits of SHA-256 over the length-prefixed parts, in hexadecimal.
fn derive(purpose: &str, parts: &[&str]) -> String {
    let mut hash = Sha256::new();
    for part in std::iter::once(&purpose).chain(parts) {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part.as_bytes());
    }
    hex::encode(&hash.finalize()[..16])
}

/// The secret of one claim call. The store keeps only its SHA-256, so whoever reads the database cannot acknowledge.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(pub [u8; 16]);

impl Token {
    /// A fresh token of 128 random bits.
    #[must_use]
    pub fn random() -> Self {
        Self(rand::random())
    }

    /// What the store keeps.
    #[must_use]
    pub fn hash(&self) -> Vec<u8> {
        Sha256::digest(self.0).to_vec()
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(..)")
    }
}

/// The right to run one message once, until its lease ends. Every statement that settles the message names all of
/// `seq`, `fence` and `token`; a claim that was taken over matches nothing.
#[derive(Debug, Clone)]
pub struct Claim {
    /// Place of the message in the order of acceptance.
    pub seq: i64,
    /// Grows with each claim of the message; the higher one wins.
    pub fence: i64,
    /// Proves that the holder is who claimed.
    pub token: Token,
    /// 1 for the first attempt; counted at the claim, before anything runs.
    pub attempt: u32,
    /// Attempts before the last redrive, which do not count against the limit.
    pub attempts_before: u32,
    /// Which function, as deployed.
    pub function: String,
    /// The group of the message.
    pub group: Option<String>,
    /// The version that this attempt runs.
    pub version: i64,
    /// By which rules the run ends.
    pub contract: Contract,
    /// How long each heartbeat keeps the claim.
    pub lease: Duration,
    /// When it was claimed, by the store's clock.
    pub claimed_at: Timestamp,
    /// Random id of the host that claimed; for people.
    pub host: String,
}

impl Claim {
    /// Attempts that count against the limit: those since the last redrive.
    #[must_use]
    pub fn attempts_counted(&self) -> u32 {
        self.attempt.saturating_sub(self.attempts_before)
    }
}

/// A claimed message.
#[derive(Debug, Clone)]
pub struct Claimed {
    /// The right to run it.
    pub claim: Claim,
    /// The message itself.
    pub message: Message,
}

/// What a handler answers; stored with the acknowledgement and shown to nobody before the commit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Answer {
    /// Media type of the body.
    pub content_type: Option<String>,
    /// Headers of the answer.
    pub headers: Vec<Header>,
    /// The payload.
    pub body: Vec<u8>,
}

/// How one run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The handler returned ok and nothing stands against the commit.
    Completed(Option<Answer>),
    /// The handler asked for another attempt, or ended with a failed transaction.
    Failed {
        /// What went wrong.
        reason: String,
        /// Shortest time to wait before the next attempt.
        delay: Option<Duration>,
    },
    /// The handler said that this message can never succeed.
    Refused(String),
    /// A trap: a panic of the guest, an unreachable, a violated bound.
    Trapped(String),
    /// The fuel of the manifest was used up.
    OutOfFuel,
    /// The hard timeout passed.
    TimedOut,
    /// The guest wanted more memory than it may have or than is left for all, and ended because of that.
    OutOfMemory(String),
    /// A statement that is not allowed was tried; nothing of it was run.
    SqlForbidden(String),
    /// The database ended the transaction (a deadlock, a full disk, a lost connection).
    Doomed(String),
    /// The host could not run it: the component did not load, or the host itself failed.
    HostFailed(String),
    /// A person cancelled the message while it ran.
    Cancelled,
    /// The claim no longer held while it ran: another host took the message over, or a person there took it back.
    ClaimLost,
}

impl Outcome {
    /// The name used in attempts, traces and metrics.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Completed(_) => "completed",
            Self::Failed { .. } => "failed",
            Self::Refused(_) => "refused",
            Self::Trapped(_) => "trapped",
            Self::OutOfFuel => "out-of-fuel",
            Self::TimedOut => "timed-out",
            Self::OutOfMemory(_) => "out-of-memory",
            Self::SqlForbidden(_) => "sql-forbidden",
            Self::Doomed(_) => "doomed",
            Self::HostFailed(_) => "host-failed",
            Self::Cancelled => "cancelled",
            Self::ClaimLost => "host-lost",
        }
    }

    /// What to tell people; empty for a completed run.
    #[must_use]
    pub fn reason(&self) -> String {
        match self {
            Self::Completed(_) => String::new(),
            Self::Failed { reason, .. }
            | Self::Refused(reason)
            | Self::Trapped(reason)
            | Self::OutOfMemory(reason)
            | Self::SqlForbidden(reason)
            | Self::Doomed(reason)
            | Self::HostFailed(reason) => reason.clone(),
            Self::OutOfFuel => "the fuel limit of the manifest ([limits] fuel) was reached".into(),
            Self::TimedOut => "the hard timeout of the manifest ([limits] timeout) passed".into(),
            Self::Cancelled => "cancelled by a person while it ran".into(),
            Self::ClaimLost => "its claim did not hold any more while it ran".into(),
        }
    }
}

/// One line that a guest logged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// When, by the store's clock.
    pub at: Timestamp,
    /// `trace`, `debug`, `info`, `warn` or `error`.
    pub level: &'static str,
    /// The text, cut at its limit.
    pub message: String,
    /// Fields, in order.
    pub fields: Vec<(String, String)>,
}

/// What one attempt used and said; written when the attempt is settled, whatever its outcome.
#[derive(Debug, Clone, Default)]
pub struct Usage {
    /// When the guest's code began to run; none if it never did.
    pub started_at: Option<Timestamp>,
    /// When the run ended.
    pub ended_at: Option<Timestamp>,
    /// Fuel used: WebAssembly instructions, roughly. None where a deadline interrupted the guest: the counter is only
    /// written back at calls, so it would say too little.
    pub fuel: Option<u64>,
    /// SQL statements of the guest.
    pub statements: u32,
    /// Time spent in them.
    pub sql_time: Duration,
    /// Messages published.
    pub published: u32,
    /// Lines logged, in order.
    pub logs: Vec<LogLine>,
    /// Lines that were counted instead of kept.
    pub logs_dropped: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_of_a_call_depends_on_secret_message_and_ordinal_alone() {
        let key = call_key(&[7; 32], "m", 0);
        assert_eq!((key.len(), &key), (32, &call_key(&[7; 32], "m", 0)));
        for other in [call_key(&[8; 32], "m", 0), call_key(&[7; 32], "n", 0), call_key(&[7; 32], "m", 1)] {
            assert_ne!(key, other);
        }
    }
}
