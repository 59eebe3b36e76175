//! Where events go that are for others: a broker, or a server that takes webhooks.
//!
//! Before it: [`crate::relay`] claimed what a commit left in the outbox. A sink sends and says what became of each event;
//! what that means for its message is decided there. Each kind has a file of its own.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde::Deserialize;

use crate::clock::Timestamp;
use crate::message::Header;

mod nats;
mod rabbitmq;
mod webhook;

pub use nats::{Nats, NatsSettings};
pub use rabbitmq::{RabbitMq, RabbitMqSettings};
pub use webhook::{Format, Webhook, WebhookSettings};

/// `[sinks.NAME]`, by `kind`.
#[derive(Debug, Clone, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Settings {
    /// A RabbitMQ broker.
    RabbitMq(RabbitMqSettings),
    /// NATS servers with JetStream.
    Nats(NatsSettings),
    /// A server that takes webhooks.
    Webhook(WebhookSettings),
}

impl Settings {
    /// The topics whose events go there.
    #[must_use]
    pub fn topics(&self) -> &[String] {
        match self {
            Self::RabbitMq(settings) => &settings.topics,
            Self::Nats(settings) => &settings.topics,
            Self::Webhook(settings) => &settings.topics,
        }
    }

    /// As it is written.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::RabbitMq(_) => "rabbitmq",
            Self::Nats(_) => "nats",
            Self::Webhook(_) => "webhook",
        }
    }

    /// The sink itself, which connects when it has something to send.
    ///
    /// # Errors
    /// If a setting does not fit, or a file of a secret cannot be read.
    pub fn sink(&self) -> anyhow::Result<Arc<dyn Sink>> {
        Ok(match self {
            Self::RabbitMq(settings) => Arc::new(RabbitMq::new(settings)?),
            Self::Nats(settings) => Arc::new(Nats::new(settings)?),
            Self::Webhook(settings) => Arc::new(Webhook::new(settings)?),
        })
    }
}

/// An event on its way out. It is sent again until the sink has it, each time the same.
#[derive(Debug, Clone)]
pub struct Outgoing {
    /// The event's, equal on every attempt and at every sink: what receivers tell duplicates by.
    pub id: String,
    /// Where it was published.
    pub topic: String,
    /// Its group: events of one arrive in the order of their commits.
    pub group: Option<String>,
    /// When the commit took place that published it, by the store's clock.
    pub time: Timestamp,
    /// Media type of the body.
    pub content_type: Option<String>,
    /// Those of the publisher.
    pub headers: Vec<Header>,
    /// The payload.
    pub body: Vec<u8>,
}

/// What became of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sent {
    /// It is the sink's now: the broker has confirmed it, or the server has answered so.
    Taken,
    /// It may have been taken, or not; it is sent again, after this time at the earliest, and given up after many times.
    Again {
        /// For people, as all reasons here: what happened, where, and what to do. No password, no token.
        reason: String,
        /// What the sink asked for.
        after: Option<Duration>,
    },
    /// Nothing can be sent now (no connection, no queue): this event is not to blame, and the others would fare no better.
    Closed(String),
    /// The sink will never take this one (too large, say); others it may.
    Never(String),
}

/// One way out. It connects by itself when it has something to send, and again when a connection is lost; it is used by any
/// number of tasks.
#[async_trait]
pub trait Sink: Send + Sync {
    /// Sends these in order, and waits for what the other side says of each: as many answers as events, in their order.
    /// Returns within [`PATIENCE`], whatever the other side does. Two events of one group are never in one call.
    async fn send(&self, events: &[Outgoing]) -> Vec<Sent>;

    /// So many events are sent with one call, and so many calls are under way at once.
    fn room(&self) -> (usize, usize);

    /// What this kind of sink promises, for people.
    fn guarantee(&self) -> &'static str;
}

/// Longest time that a sink may take over one call.
pub const PATIENCE: Duration = Duration::from_secs(15);
