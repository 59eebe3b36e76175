//! Where messages of others come from: a broker that delivers each at least once.
//!
//! Each becomes an event of the source's topic, once: its id is kept in the inbox, in the commit that puts it into the queue.
//! Only after that commit the broker is told that it may forget it. Each kind of broker has a file of its own.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use serde::Deserialize;
use tokio::sync::watch;

use crate::message::Header;

mod nats;
mod rabbitmq;

pub use nats::{Nats, NatsSettings};
pub use rabbitmq::{RabbitMq, RabbitMqSettings, WithoutId};

/// `[sources.NAME]`, by `kind`.
#[derive(Debug, Clone, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Settings {
    /// A queue of a RabbitMQ broker.
    RabbitMq(RabbitMqSettings),
    /// A stream of NATS servers with JetStream.
    Nats(NatsSettings),
}

impl Settings {
    /// The topic that it feeds.
    #[must_use]
    pub fn topic(&self) -> &str {
        match self {
            Self::RabbitMq(settings) => &settings.topic,
            Self::Nats(settings) => &settings.topic,
        }
    }

    /// How long an id is remembered: the deduplication window.
    #[must_use]
    pub fn window(&self) -> Duration {
        let given = match self {
            Self::RabbitMq(settings) => settings.window,
            Self::Nats(settings) => settings.window,
        };
        given.map_or(WINDOW, |span| span.0)
    }

    /// As it is written.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::RabbitMq(_) => "rabbitmq",
            Self::Nats(_) => "nats",
        }
    }

    /// The source itself, which connects when it is run.
    ///
    /// # Errors
    /// If a setting does not fit, or a file of a secret cannot be read.
    pub fn source(&self) -> anyhow::Result<Arc<dyn Source>> {
        Ok(match self {
            Self::RabbitMq(settings) => Arc::new(RabbitMq::new(settings)?),
            Self::Nats(settings) => Arc::new(Nats::new(settings)?),
        })
    }
}

/// How long an id is remembered, if nothing else is said: brokers keep what nobody acknowledges for as long as they like.
const WINDOW: Duration = Duration::from_hours(7 * 24);

/// What a broker delivered.
#[derive(Debug, Clone, Default)]
pub struct Delivery {
    /// By which the broker's other deliveries of the same message are known.
    pub id: String,
    /// Messages of one group are handled in order.
    pub group: Option<String>,
    /// Media type of the body.
    pub content_type: Option<String>,
    /// In order; names in lower case.
    pub headers: Vec<Header>,
    /// The payload.
    pub body: Vec<u8>,
}

/// The only way in.
#[async_trait]
pub trait Intake: Send + Sync {
    /// Takes deliveries in order, and returns when all of them are durable, from now or before: then the broker may forget
    /// them. While that cannot be (a full backlog, no database, nobody who subscribes) it waits. False if the host stops: then
    /// none of them may be acknowledged.
    async fn take(&self, deliveries: Vec<Delivery>) -> bool;

    /// Says to people how the source stands: `None` if it receives, else what is wrong and what to do.
    fn stands(&self, trouble: Option<String>);
}

/// One way in.
#[async_trait]
pub trait Source: Send + Sync {
    /// Connects, receives and hands over until `stop` says so, and connects again whenever that is lost, with growing pauses.
    /// What was not taken goes back to the broker.
    async fn run(&self, intake: &dyn Intake, stop: watch::Receiver<bool>);

    /// What this kind of source promises, for people.
    fn guarantee(&self) -> &'static str;
}

/// Deliveries that may be under way at once, from one source: what a broker sends before the first is acknowledged.
pub const PREFETCH: u16 = 256;

/// Between two tries to receive, while that fails.
const PAUSE: [Duration; 2] = [Duration::from_millis(250), Duration::from_secs(10)];

/// What each kind of broker does between connecting and losing it.
#[async_trait]
trait Receive: Send + Sync {
    /// Returns when `stop` says so, with an error if the connection is lost or there never was one. Sets `received` once
    /// something was taken.
    async fn receive(
        &self,
        intake: &dyn Intake,
        stop: &mut watch::Receiver<bool>,
        received: &mut bool,
    ) -> Result<(), String>;
}

/// Receives, again and again, until `stop` says so.
async fn keep_receiving(from: &dyn Receive, intake: &dyn Intake, mut stop: watch::Receiver<bool>) {
    let [shortest, longest] = PAUSE;
    let mut pause = shortest;
    while !*stop.borrow() {
        let (mut received, began) = (false, Instant::now());
        let Err(reason) = from.receive(intake, &mut stop, &mut received).await else { return };
        intake.stands(Some(reason));
        pause = if received || began.elapsed() > longest * 2 { shortest } else { (pause * 2).min(longest) };
        tokio::select! {
            () = stopped(&mut stop) => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
}

async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await; // Who could say so is gone: that says it as well.
}
