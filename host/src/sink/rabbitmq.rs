//! RabbitMQ: publishes durably, with confirms, and wants each event in a queue.
//!
//! What is in which property is in docs/brokers.md.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use lapin::message::BasicReturnMessage;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Confirmation};
use serde::Deserialize;
use tokio::time::{Instant, timeout_at};

use super::{Outgoing, Sent, Sink};
use crate::broker::rabbitmq::{self, Link, code, code_of, declare_exchange, declare_queue, said, short};
use crate::broker::{self, Access, Address, fill};

/// Longest time for one call.
const LONGEST: Duration = Duration::from_secs(12);
/// Events of one call, and calls at once.
const ROOM: (usize, usize) = (128, 4);
/// Written by the broker's own rules: survives its restart.
const PERSISTENT: u8 = 2;

/// `[sinks.NAME]` with `kind = "rabbitmq"`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RabbitMqSettings {
    /// Topics whose events are sent there.
    pub topics: Vec<String>,
    /// `amqp://USER@HOST:PORT/VHOST`, or `amqps://`.
    pub url: Address,
    /// A file with the user's password, if it is not in the URL.
    pub password_file: Option<PathBuf>,
    /// A file with the certificates that the broker's may come from, in PEM; by default those that this machine trusts.
    pub ca_file: Option<PathBuf>,
    /// Where it is published; by default the default exchange, whose routing keys are the names of queues.
    #[serde(default)]
    pub exchange: String,
    /// Under which key; `{topic}` in it is the event's topic, which is the default.
    #[serde(default = "broker::topic")]
    pub routing_key: String,
    /// Whether to make the exchange (durable, of the kind `topic`) or, of the default exchange, the queues (durable).
    #[serde(default)]
    pub declare: bool,
}

/// A RabbitMQ broker.
pub struct RabbitMq {
    access: Access,
    settings: RabbitMqSettings,
    session: tokio::sync::Mutex<Option<Arc<Session>>>,
}

struct Session {
    link: Link,
    /// Those that nobody uses now.
    channels: Mutex<Vec<Channel>>,
}

/// What is known of an event.
#[derive(Clone)]
enum Fate {
    Known(Sent),
    /// The broker ended the channel or the connection because of something that was sent on it.
    Refused(String),
    /// The connection ended before the broker said anything.
    Lost(String),
}

impl RabbitMq {
    /// # Errors
    /// If the URL is none, or a file cannot be read.
    pub fn new(settings: &RabbitMqSettings) -> anyhow::Result<Self> {
        let RabbitMqSettings { url, password_file, ca_file, .. } = settings;
        let access = Access::new(url, password_file.as_deref(), ca_file.as_deref(), rabbitmq::SCHEMES)?;
        Ok(Self { access, settings: settings.clone(), session: tokio::sync::Mutex::default() })
    }

    /// The one that there is, if it is good, else a new one.
    async fn session(&self) -> Result<Arc<Session>, String> {
        let mut session = self.session.lock().await;
        if let Some(session) = session.as_ref().filter(|session| session.link.status().connected()) {
            return Ok(Arc::clone(session));
        }
        *session = None;
        let opened = Session { link: rabbitmq::connect(&self.access, "semel sink").await?, channels: Mutex::default() };
        if self.settings.declare {
            self.declare(&opened).await?;
        }
        Ok(Arc::clone(session.insert(Arc::new(opened))))
    }

    async fn declare(&self, session: &Session) -> Result<(), String> {
        let RabbitMqSettings { topics, exchange, routing_key, .. } = &self.settings;
        let channel = session.link.create_channel().await.map_err(|error| said(&error))?;
        if !exchange.is_empty() {
            return declare_exchange(&channel, exchange).await;
        }
        for topic in topics {
            declare_queue(&channel, &fill(routing_key, topic)).await?;
        }
        Ok(())
    }

    /// Sends them together. What became of each, in their order.
    async fn publish(&self, events: &[Outgoing], until: Instant) -> Vec<Fate> {
        let all = |sent: Sent| events.iter().map(|_| Fate::Known(sent.clone())).collect();
        let session = match timeout_at(until, self.session()).await {
            Ok(Ok(session)) => session,
            Ok(Err(reason)) => return all(Sent::Closed(reason)),
            Err(_) => return all(Sent::Closed(TOO_LATE.into())),
        };
        let channel = match timeout_at(until, session.channel()).await {
            Ok(Ok(channel)) => channel,
            Ok(Err(error)) => return all(Sent::Closed(said(&error))),
            Err(_) => return all(Sent::Closed(session.silence())),
        };
        let mut confirms = Vec::new();
        for event in events {
            confirms.push(match self.properties(event) {
                Err(reason) => Err(Fate::Known(Sent::Never(reason))),
                Ok(properties) => self.begin(&channel, event, properties, &session, until).await,
            });
        }
        let mut fates = Vec::new();
        for confirm in confirms {
            fates.push(match confirm {
                Err(fate) => fate,
                Ok(confirm) => match timeout_at(until, confirm).await {
                    Ok(Ok(confirmation)) => Fate::Known(sent(confirmation)),
                    Ok(Err(error)) => fate(&error),
                    Err(_) => session.too_late(),
                },
            });
        }
        // All of them ended for the one reason that some were told.
        let told = fates.iter().find(|fate| matches!(fate, Fate::Refused(_) | Fate::Known(Sent::Closed(_)))).cloned();
        for fate in fates.iter_mut().filter(|fate| matches!(fate, Fate::Lost(_))) {
            *fate = told.clone().unwrap_or_else(|| fate.clone());
        }
        if fates.iter().all(|fate| matches!(fate, Fate::Known(_))) {
            session.keep(channel);
        } else if !fates.iter().any(|fate| matches!(fate, Fate::Refused(_))) {
            self.forget(&session).await;
        }
        fates
    }

    async fn begin(
        &self,
        channel: &Channel,
        event: &Outgoing,
        properties: BasicProperties,
        session: &Session,
        until: Instant,
    ) -> Result<lapin::PublisherConfirm, Fate> {
        let RabbitMqSettings { exchange, routing_key, .. } = &self.settings;
        let known = |reason: String| Fate::Known(Sent::Never(reason));
        let exchange = short("the name of the exchange", exchange).map_err(known)?;
        let key = short("the routing key", &fill(routing_key, &event.topic)).map_err(known)?;
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let publish = channel.basic_publish(exchange, key, options, &event.body, properties);
        match timeout_at(until, publish).await {
            Ok(begun) => begun.map_err(|error| fate(&error)),
            Err(_) => Err(session.too_late()),
        }
    }

    /// As docs/brokers.md says.
    fn properties(&self, event: &Outgoing) -> Result<BasicProperties, String> {
        let mut headers = FieldTable::default();
        let mut add = |name: &str, value: &str| {
            headers.insert(short("the name of a header", name)?, AMQPValue::LongString(value.into()));
            Ok::<_, String>(())
        };
        for (name, value) in joined(event) {
            add(&name, &value)?;
        }
        add("semel-time", &event.time.to_string())?;
        if let Some(group) = &event.group {
            add("semel-group", group)?;
        }
        let properties = BasicProperties::default()
            .with_delivery_mode(PERSISTENT)
            .with_app_id("semel".into())
            .with_message_id(short("the id", &event.id)?)
            .with_type(short("the topic", &event.topic)?)
            .with_timestamp(u64::try_from(event.time.0 / 1_000_000).unwrap_or(0))
            .with_headers(headers);
        Ok(match &event.content_type {
            Some(kind) => properties.with_content_type(short("the content type", kind)?),
            None => properties,
        })
    }

    async fn forget(&self, session: &Arc<Session>) {
        let mut known = self.session.lock().await;
        if known.as_ref().is_some_and(|known| Arc::ptr_eq(known, session)) {
            *known = None;
        }
    }
}

#[async_trait]
impl Sink for RabbitMq {
    async fn send(&self, events: &[Outgoing]) -> Vec<Sent> {
        let until = Instant::now() + LONGEST;
        let mut sent = Vec::new();
        for (fate, event) in self.publish(events, until).await.into_iter().zip(events) {
            sent.push(match fate {
                Fate::Known(sent) => sent,
                Fate::Lost(reason) => Sent::Again { reason, after: None },
                Fate::Refused(reason) if events.len() == 1 => Sent::Never(reason),
                // One of them, but which? Alone, the others are taken.
                Fate::Refused(_) => match self.publish(std::slice::from_ref(event), until).await.pop() {
                    Some(Fate::Known(sent)) => sent,
                    Some(Fate::Refused(reason)) => Sent::Never(reason),
                    Some(Fate::Lost(reason)) => Sent::Again { reason, after: None },
                    None => Sent::Again { reason: TOO_LATE.into(), after: None },
                },
            });
        }
        sent
    }

    fn room(&self) -> (usize, usize) {
        ROOM
    }

    fn guarantee(&self) -> &'static str {
        "at least once, durably queued; the receiver tells duplicates by message_id"
    }
}

impl Session {
    async fn channel(&self) -> lapin::Result<Channel> {
        let mut kept = std::iter::from_fn(|| self.channels.lock().unwrap_or_else(PoisonError::into_inner).pop());
        if let Some(channel) = kept.find(|channel| channel.status().connected()) {
            return Ok(channel);
        }
        let channel = self.link.create_channel().await?;
        channel.confirm_select(ConfirmSelectOptions::default()).await?;
        Ok(channel)
    }

    fn keep(&self, channel: Channel) {
        self.channels.lock().unwrap_or_else(PoisonError::into_inner).push(channel);
    }

    /// While it blocks publishers, an event is not to blame.
    fn too_late(&self) -> Fate {
        if self.link.status().blocked() {
            Fate::Known(Sent::Closed(self.silence()))
        } else {
            Fate::Lost(self.silence())
        }
    }

    fn silence(&self) -> String {
        let blocked = "the broker takes nothing: it is short of memory or of room on its disk";
        if self.link.status().blocked() { blocked.into() } else { TOO_LATE.into() }
    }
}

const TOO_LATE: &str = "the broker did not confirm in time";

fn sent(confirmation: Confirmation) -> Sent {
    let again = |reason| Sent::Again { reason, after: None };
    match confirmation {
        Confirmation::Ack(None) => Sent::Taken,
        Confirmation::Ack(Some(back)) | Confirmation::Nack(Some(back)) => again(no_queue(&back)),
        Confirmation::Nack(None) => again("the broker refused it: a queue is full, or cannot be written".into()),
        Confirmation::NotRequested => again("the broker was not asked to confirm".into()),
    }
}

fn no_queue(back: &BasicReturnMessage) -> String {
    let (exchange, key) = (&back.delivery.exchange, &back.delivery.routing_key);
    match exchange.as_str() {
        "" => format!("there is no queue \"{key}\": make it, or let the sink do so (declare = true)"),
        exchange => format!("no queue is bound to the exchange \"{exchange}\" for the routing key \"{key}\""),
    }
}

/// What an event's error says of it.
fn fate(error: &lapin::Error) -> Fate {
    use code::{ACCESS_REFUSED, CONTENT_TOO_LARGE, FRAME_ERROR, NOT_FOUND, PRECONDITION_FAILED, SYNTAX_ERROR};
    let said = said(error);
    match code_of(error) {
        Some(ACCESS_REFUSED | NOT_FOUND) => Fate::Known(Sent::Closed(said)),
        Some(PRECONDITION_FAILED | CONTENT_TOO_LARGE | FRAME_ERROR | SYNTAX_ERROR) => Fate::Refused(said),
        _ => Fate::Lost(format!("the connection was lost before the broker confirmed: {said}")),
    }
}

/// The publisher's own headers. A table has each name once; some names in capitals are orders to the broker.
fn joined(event: &Outgoing) -> Vec<(String, String)> {
    let mut joined: Vec<(String, String)> = Vec::new();
    for (name, value) in &event.headers {
        let name = name.to_lowercase();
        match joined.iter_mut().find(|(known, _)| *known == name) {
            Some((_, all)) => *all = format!("{all}, {value}"),
            None => joined.push((name, value.clone())),
        }
    }
    joined
}
