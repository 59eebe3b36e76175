//! RabbitMQ: receives from one queue, and acknowledges what is durable here.
//!
//! What becomes of which property is in docs/brokers.md.

use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::{FutureExt as _, StreamExt as _};
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions, QueueBindOptions};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{BasicProperties, Channel, Consumer};
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::sync::watch;
use uuid::Uuid;

use super::{Delivery, Intake, PREFETCH, Receive, Source, keep_receiving, stopped};
use crate::broker::rabbitmq::{self, Link, code, code_of, declare_exchange, declare_queue, said, short};
use crate::broker::{Access, Address, text};
use crate::clock::Timestamp;
use crate::manifest::Span;
use crate::message::Header;

/// Longest time to end a connection as it should be.
const FAREWELL: Duration = Duration::from_secs(2);

/// `[sources.NAME]` with `kind = "rabbitmq"`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RabbitMqSettings {
    /// The topic that it feeds.
    pub topic: String,
    /// How long an id is remembered.
    pub window: Option<Span>,
    /// `amqp://USER@HOST:PORT/VHOST`, or `amqps://`.
    pub url: Address,
    /// A file with the user's password, if it is not in the URL.
    pub password_file: Option<PathBuf>,
    /// A file with the certificates that the broker's may come from, in PEM; by default those that this machine trusts.
    pub ca_file: Option<PathBuf>,
    /// From where it receives. One host receives; the others stand by.
    pub queue: String,
    /// What a message without a `message_id` is known by.
    #[serde(default)]
    pub without_id: WithoutId,
    /// Whether to make the queue (durable), and to bind it to the exchange if there is one.
    #[serde(default)]
    pub declare: bool,
    /// With `declare`: a durable exchange of the kind `topic`, which is made as well.
    pub exchange: Option<String>,
    /// With `exchange`: under which key the queue is bound to it; `#`, everything, by default.
    pub routing_key: Option<String>,
}

/// What a message is known by that has no id.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WithoutId {
    /// By what it says: two that say the same are one.
    #[default]
    Content,
    /// By nothing: each delivery is a message of its own, so what is delivered again is handled again.
    Each,
}

/// A queue of RabbitMQ.
pub struct RabbitMq {
    access: Access,
    settings: RabbitMqSettings,
}

impl RabbitMq {
    /// # Errors
    /// If the URL is none, a file cannot be read, or settings contradict each other.
    pub fn new(settings: &RabbitMqSettings) -> anyhow::Result<Self> {
        let RabbitMqSettings { url, password_file, ca_file, exchange, routing_key, declare, .. } = settings;
        anyhow::ensure!(*declare || exchange.is_none(), "exchange says what to make: it needs declare = true");
        anyhow::ensure!(exchange.is_some() || routing_key.is_none(), "routing_key needs the exchange that it is for");
        let access = Access::new(url, password_file.as_deref(), ca_file.as_deref(), rabbitmq::SCHEMES)?;
        Ok(Self { access, settings: settings.clone() })
    }

    async fn open(&self) -> Result<(Link, Consumer), String> {
        let link = rabbitmq::connect(&self.access, "semel source").await?;
        let channel = link.create_channel().await.map_err(|error| said(&error))?;
        channel.basic_qos(PREFETCH, BasicQosOptions::default()).await.map_err(|error| said(&error))?;
        if self.settings.declare {
            self.declare(&channel).await?;
        }
        let queue = &self.settings.queue;
        let name = short("the name of the queue", queue)?;
        // Two that receive would share a group's messages, and its order would be lost.
        let options = BasicConsumeOptions { exclusive: true, ..BasicConsumeOptions::default() };
        let consumer = channel.basic_consume(name, ShortString::default(), options, FieldTable::default()).await;
        let consumer = consumer.map_err(|error| match code_of(&error) {
            Some(code::NOT_FOUND) => {
                format!("there is no queue \"{queue}\": make it, or let the source do so (declare = true)")
            }
            Some(code::ACCESS_REFUSED) => format!(
                "the queue \"{queue}\" is not to be had: another host receives from it, or the user may not: {}",
                said(&error)
            ),
            _ => format!("cannot receive from the queue \"{queue}\": {}", said(&error)),
        })?;
        Ok((link, consumer))
    }

    async fn declare(&self, channel: &Channel) -> Result<(), String> {
        let RabbitMqSettings { queue, exchange, routing_key, .. } = &self.settings;
        declare_queue(channel, queue).await?;
        let Some(exchange) = exchange else { return Ok(()) };
        declare_exchange(channel, exchange).await?;
        let key = short("the routing key", routing_key.as_deref().unwrap_or("#"))?;
        let (queue, exchange) = (short("the queue", queue)?, short("the exchange", exchange)?);
        let bound = channel.queue_bind(queue, exchange, key, QueueBindOptions::default(), FieldTable::default());
        bound.await.map_err(|error| format!("cannot bind the queue: {}", said(&error)))
    }
}

#[async_trait]
impl Receive for RabbitMq {
    async fn receive(
        &self,
        intake: &dyn Intake,
        stop: &mut watch::Receiver<bool>,
        received: &mut bool,
    ) -> Result<(), String> {
        let (link, mut consumer) = tokio::select! {
            () = stopped(stop) => return Ok(()),
            opened = self.open() => opened?,
        };
        intake.stands(None);
        loop {
            let first = tokio::select! {
                biased;
                () = stopped(stop) => break,
                next = consumer.next() => match next {
                    Some(Ok(first)) => first,
                    Some(Err(error)) => return Err(said(&error)),
                    None if link.status().connected() => {
                        return Err(format!("the broker ended the subscription: is \"{}\" still there?", self.settings.queue));
                    }
                    None => return Err("the connection was lost".into()),
                },
            };
            let gathered = gather(&mut consumer, first);
            let last = gathered.last().map(|last| last.acker.clone());
            let deliveries = gathered.into_iter().map(|one| read(one, self.settings.without_id)).collect();
            if !intake.take(deliveries).await {
                return Ok(()); // With the connection, they go back.
            }
            *received = true;
            if let Some(last) = last {
                let through = BasicAckOptions { multiple: true };
                last.ack(through).await.map_err(|error| format!("cannot acknowledge: {}", said(&error)))?;
            }
        }
        // It ends in any case.
        let _ = tokio::time::timeout(FAREWELL, link.close(200, "the host stops".into())).await;
        Ok(())
    }
}

/// With the first, what is there: nobody waits for company. If that is an end, the next wait finds out.
fn gather(consumer: &mut Consumer, first: lapin::message::Delivery) -> Vec<lapin::message::Delivery> {
    let mut gathered = vec![first];
    while gathered.len() < usize::from(PREFETCH) {
        let Some(Some(Ok(next))) = consumer.next().now_or_never() else { break };
        gathered.push(next);
    }
    gathered
}

#[async_trait]
impl Source for RabbitMq {
    async fn run(&self, intake: &dyn Intake, stop: watch::Receiver<bool>) {
        keep_receiving(self, intake, stop).await;
    }

    fn guarantee(&self) -> &'static str {
        "each message once by its message_id; what is delivered again is acknowledged and not handled again"
    }
}

/// As docs/brokers.md says.
fn read(delivery: lapin::message::Delivery, without_id: WithoutId) -> Delivery {
    let lapin::message::Delivery { exchange, routing_key, properties, data, .. } = delivery;
    let own = || properties.headers().iter().flat_map(|table| table.inner());
    let id = properties.message_id().as_ref().map(ShortString::as_str).filter(|id| !id.is_empty());
    let id = id.map(str::to_owned).unwrap_or_else(|| match without_id {
        WithoutId::Each => Uuid::now_v7().simple().to_string(),
        WithoutId::Content => content(&exchange, &routing_key, &properties, &data),
    });
    let headers: Vec<Header> = own().map(|(name, value)| (name.as_str().to_lowercase(), header(value))).collect();
    let group = headers.iter().find(|(name, value)| name == "semel-group" && !value.is_empty());
    let group = group.map(|(_, group)| group.clone());
    let text = |property: &Option<ShortString>| property.as_ref().map(ToString::to_string);
    let native = [
        ("rabbitmq-exchange", Some(exchange.to_string())),
        ("rabbitmq-routing-key", Some(routing_key.to_string())),
        ("rabbitmq-type", text(properties.kind())),
        ("rabbitmq-timestamp", properties.timestamp().map(time)),
        ("rabbitmq-app-id", text(properties.app_id())),
        ("rabbitmq-correlation-id", text(properties.correlation_id())),
        ("rabbitmq-reply-to", text(properties.reply_to())),
        ("rabbitmq-content-encoding", text(properties.content_encoding())),
    ];
    let native = native.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
    Delivery {
        id,
        group,
        content_type: text(properties.content_type()),
        headers: headers.into_iter().filter(|(name, _)| !name.starts_with("rabbitmq-")).chain(native).collect(),
        body: data,
    }
}

/// The SHA-256 of all that stays equal when the broker delivers it again.
fn content(exchange: &ShortString, key: &ShortString, properties: &BasicProperties, body: &[u8]) -> String {
    let mut hash = Sha256::new();
    let mut add = |part: &[u8]| {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    };
    let kind = properties.kind().as_ref().map_or("", ShortString::as_str);
    let media = properties.content_type().as_ref().map_or("", ShortString::as_str);
    for part in [exchange.as_str(), key.as_str(), kind, media] {
        add(part.as_bytes());
    }
    add(&properties.timestamp().unwrap_or_default().to_be_bytes());
    for (name, value) in properties.headers().iter().flat_map(|table| table.inner()) {
        // Those that count how often it was delivered.
        if !["x-delivery-count", "x-acquired-count"].contains(&name.as_str()) {
            add(name.as_str().as_bytes());
            add(header(value).as_bytes());
        }
    }
    add(body);
    format!("sha256:{}", hex::encode(hash.finalize()))
}

fn time(seconds: u64) -> String {
    Timestamp(i64::try_from(seconds).unwrap_or(i64::MAX).saturating_mul(1_000_000)).to_string()
}

/// A value of a table as text.
fn header(value: &AMQPValue) -> String {
    match value {
        AMQPValue::LongString(bytes) => text(bytes.as_bytes()),
        AMQPValue::ByteArray(bytes) => text(bytes.as_slice()),
        other => match json(other) {
            Value::String(text) => text,
            Value::Null => String::new(),
            other => other.to_string(),
        },
    }
}

fn json(value: &AMQPValue) -> Value {
    match value {
        AMQPValue::Boolean(value) => json!(value),
        AMQPValue::ShortShortInt(value) => json!(value),
        AMQPValue::ShortShortUInt(value) => json!(value),
        AMQPValue::ShortInt(value) => json!(value),
        AMQPValue::ShortUInt(value) => json!(value),
        AMQPValue::LongInt(value) => json!(value),
        AMQPValue::LongUInt(value) => json!(value),
        AMQPValue::LongLongInt(value) => json!(value),
        AMQPValue::Float(value) => json!(value),
        AMQPValue::Double(value) => json!(value),
        AMQPValue::DecimalValue(value) => json!(f64::from(value.value) / 10_f64.powi(value.scale.into())),
        AMQPValue::ShortString(value) => json!(value.as_str()),
        AMQPValue::LongString(value) => json!(text(value.as_bytes())),
        AMQPValue::ByteArray(value) => json!(text(value.as_slice())),
        AMQPValue::Timestamp(seconds) => json!(time(*seconds)),
        AMQPValue::FieldArray(values) => values.as_slice().iter().map(json).collect(),
        AMQPValue::FieldTable(table) => {
            table.inner().iter().map(|(name, value)| (name.to_string(), json(value))).collect()
        }
        AMQPValue::Void => Value::Null,
    }
}
