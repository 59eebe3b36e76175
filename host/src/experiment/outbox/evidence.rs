//! What there is to see: what a broker was given, from a queue of the experiment's own, and the rows of who received it.

use std::time::Duration;

use anyhow::{Context as _, bail};
use async_nats::jetstream::{self, stream};
use futures_util::StreamExt as _;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions,
};
use lapin::types::FieldTable;
use lapin::{Channel, Connection, ConnectionProperties, ExchangeKind};
use serde_json::{Value, json};

use super::super::client::Client;
use super::broker::{Broker, EXCHANGE, Kind, QUEUE, STREAM, TAP, USER};
use super::{PUBLISHER, TOPIC};

/// Rows of one answer.
const PAGE: u64 = 500;
const PATIENCE: Duration = Duration::from_secs(10);
/// A queue that gives nothing for so long is empty.
const EMPTY: Duration = Duration::from_secs(2);

/// One event as a broker was given it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Arrived {
    pub(super) id: String,
    pub(super) body: String,
}

/// Where the experiment listens.
pub(super) struct Tap;

impl Tap {
    /// Whether the broker answers.
    pub(super) async fn reach(broker: &Broker) -> anyhow::Result<()> {
        match broker.kind {
            Kind::RabbitMq => rabbitmq(broker).await.map(drop),
            Kind::Nats => {
                use jetstream::context::GetStreamErrorKind::JetStream;
                match nats(broker).await?.get_stream(STREAM).await {
                    Ok(_) => Ok(()),
                    Err(error) if matches!(error.kind(), JetStream(_)) => Ok(()), // It says that there is none.
                    Err(error) => Err(error).context("JetStream does not answer"),
                }
            }
        }
    }

    /// Makes the queues and the stream, which outlive the broker's process.
    pub(super) async fn open(broker: &Broker) -> anyhow::Result<()> {
        match broker.kind {
            Kind::RabbitMq => {
                let (_connection, channel) = rabbitmq(broker).await?;
                let durable = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
                let arguments = FieldTable::default;
                channel.exchange_declare(EXCHANGE.into(), ExchangeKind::Topic, durable, arguments()).await?;
                for queue in [QUEUE, TAP] {
                    channel.queue_declare(queue.into(), QueueDeclareOptions::durable(), arguments()).await?;
                    let bind = QueueBindOptions::default();
                    channel.queue_bind(queue.into(), EXCHANGE.into(), TOPIC.into(), bind, arguments()).await?;
                }
            }
            Kind::Nats => {
                let config =
                    stream::Config { name: STREAM.into(), subjects: vec![TOPIC.into()], ..stream::Config::default() };
                nats(broker).await?.create_stream(config).await?;
            }
        }
        Ok(())
    }

    /// All that the broker was given, in order.
    pub(super) async fn drain(broker: &Broker) -> anyhow::Result<Vec<Arrived>> {
        let mut arrived = Vec::new();
        match broker.kind {
            Kind::RabbitMq => {
                let (_connection, channel) = rabbitmq(broker).await?;
                let consume = BasicConsumeOptions::default();
                let mut all = channel.basic_consume(TAP.into(), TAP.into(), consume, FieldTable::default()).await?;
                while let Ok(Some(delivery)) = tokio::time::timeout(EMPTY, all.next()).await {
                    let delivery = delivery?;
                    let id = delivery.properties.message_id().as_ref().context("an event without an id")?;
                    arrived.push(Arrived { id: id.to_string(), body: text(&delivery.data)? });
                    delivery.ack(BasicAckOptions::default()).await?;
                }
            }
            Kind::Nats => {
                let stream = nats(broker).await?.get_stream(STREAM).await?;
                let state = &stream.cached_info().state;
                for sequence in state.first_sequence..=state.last_sequence {
                    let message = stream.get_raw_message(sequence).await?;
                    let id = message.headers.get("Nats-Msg-Id").context("an event without an id")?;
                    arrived.push(Arrived { id: id.to_string(), body: text(&message.payload)? });
                }
            }
        }
        Ok(arrived)
    }
}

async fn rabbitmq(broker: &Broker) -> anyhow::Result<(Connection, Channel)> {
    let url = broker.url();
    let connected = tokio::time::timeout(PATIENCE, Connection::connect(&url, ConnectionProperties::default()));
    let connection = connected.await.context("it does not answer")??;
    let channel = connection.create_channel().await?;
    Ok((connection, channel))
}

async fn nats(broker: &Broker) -> anyhow::Result<jetstream::Context> {
    let login = async_nats::ConnectOptions::with_user_and_password(USER.into(), USER.into());
    let connected = tokio::time::timeout(PATIENCE, login.connect(broker.address()));
    Ok(jetstream::new(connected.await.context("it does not answer")??))
}

fn text(bytes: &[u8]) -> anyhow::Result<String> {
    String::from_utf8(bytes.to_vec()).context("an event that is no text")
}

/// What a receiver wrote, in the order of its commits.
pub(super) async fn handled(client: &Client) -> anyhow::Result<Vec<String>> {
    let (mut all, mut last) = (Vec::new(), 0);
    loop {
        let sql = format!("SELECT rowid, body FROM receipts WHERE rowid > {last} ORDER BY rowid LIMIT {PAGE}");
        let answer = client.call(PUBLISHER, &json!({ "statements": [{ "sql": sql }] }), PATIENCE).await?;
        let rows = answer.pointer("/results/0/rows").and_then(Value::as_array).cloned();
        let rows = rows.with_context(|| format!("no rows in {answer}"))?;
        for row in &rows {
            let (Some(place), Some(body)) = (number(&row[0]), row[1].as_str()) else { bail!("no row: {row}") };
            last = place;
            all.push(body.to_owned());
        }
        if (rows.len() as u64) < PAGE {
            return Ok(all);
        }
    }
}

/// A 64-bit number may come as text.
fn number(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| value.as_str()?.parse().ok())
}
