//! What is to be accepted, and what became of it.

use std::time::Duration;

use crate::message::{Event, State};

/// An event that is to be accepted.
#[derive(Debug, Clone)]
pub struct Accept {
    /// What was sent.
    pub event: Event,
    /// Whom it is for.
    pub target: Target,
    /// What makes a second request the same as the first; not where it is for [`Target::Subscribers`].
    pub key: Option<Key>,
}

/// Whom an event is for.
#[derive(Debug, Clone)]
pub enum Target {
    /// One function, whether or not it subscribes to anything.
    Function(String),
    /// All that subscribe to the event's topic.
    Subscribers,
    /// The same for what this source received, within their backlogs. The key is the source's: its inbox.
    Inbox(String),
}

/// An idempotency key in the scope of one function, or of one source.
#[derive(Debug, Clone)]
pub struct Key {
    /// As the sender wrote it.
    pub key: String,
    /// SHA-256 over what the sender meant.
    pub fingerprint: Vec<u8>,
    /// How long it is remembered.
    pub remember: Remember,
}

/// How long an idempotency key stands for its message: the deduplication window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remember {
    /// From acceptance, for so long.
    For(Duration),
    /// Until the message is settled; in-doubt is not settled.
    WhileActive,
    /// For ever.
    Forever,
}

/// What became of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Enqueued {
    /// In the queue; the ids of its messages.
    Accepted(Vec<String>),
    /// The key was used for the same before.
    Duplicate {
        /// The message that was made then.
        id: String,
        /// How it ended, if the message itself is no longer kept.
        ended_as: Option<State>,
    },
    /// The key was used for something else.
    KeyReused,
    /// Nobody would handle it: no such function, no subscriber.
    NoTarget,
    /// As many messages of the function are in the queue as its backlog limit allows.
    BacklogFull,
}

impl Enqueued {
    /// Whether there is a new message.
    #[must_use]
    pub fn is_accepted(&self) -> bool {
        matches!(self, Self::Accepted(_))
    }
}
