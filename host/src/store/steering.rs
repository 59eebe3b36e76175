//! What people decide about messages, and what is cleared away in time.

use std::time::Duration;

use async_trait::async_trait;

use super::Error;
use crate::message::State;

/// Decisions of people, each recorded with its message, and housekeeping in small steps.
#[async_trait]
pub trait Steering: Send + Sync {
    /// Puts a message that is dead, in-doubt or cancelled back into the queue, with all its attempts before it.
    async fn redrive(&self, id: &str) -> Result<Decided, Error>;

    /// Up to `limit` messages of a function in one of those states, oldest first: `seq` and id; none if the function is not
    /// deployed. Whoever goes on `after` the last of them meets none twice, also of those that were redriven and have failed
    /// again.
    async fn redrivable(
        &self,
        function: &str,
        state: State,
        after: i64,
        limit: u32,
    ) -> Result<Vec<(i64, String)>, Error>;

    /// Redrives those of these messages of a function that are in that state, in one commit. Returns their `seq`.
    async fn redrive_some(&self, function: &str, state: State, these: Vec<i64>) -> Result<Vec<i64>, Error>;

    /// Settles a message in doubt as a person says: completed or dead.
    async fn resolve_doubt(&self, id: &str, end: State) -> Result<Decided, Error>;

    /// Takes a message out of the queue for good. A run that goes on can no longer commit.
    async fn cancel(&self, id: &str) -> Result<Decided, Error>;

    /// Makes up to `limit` waiting messages of removed functions dead; in one commit. Returns how many.
    async fn sweep(&self, limit: u32) -> Result<u64, Error>;

    /// Forgets messages that ended longer ago than they are kept, and keys whose window is over: of each kind up to
    /// `limit`, in a commit of its own. A key is never forgotten before its window, nor its message and answer before a key that ends. Returns
    /// how many messages and keys.
    async fn forget(&self, keep: Retention, limit: u32) -> Result<u64, Error>;
}

/// What became of a decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decided {
    /// It is done and recorded.
    Done,
    /// No message has this id.
    NoMessage,
    /// Its function is not deployed, so nobody would run it.
    NoFunction,
    /// It stands elsewhere: this decision is not for such a message.
    Refused(State),
}

/// How long messages are kept after their end; in-doubt ones are kept until a person settles them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Completed messages.
    pub completed: Duration,
    /// Dead ones.
    pub dead: Duration,
    /// Cancelled ones.
    pub cancelled: Duration,
}

impl Retention {
    /// The shortest of them.
    #[must_use]
    pub fn shortest(self) -> Duration {
        self.completed.min(self.dead).min(self.cancelled)
    }
}
