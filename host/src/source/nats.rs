//! NATS JetStream: fetches from a durable consumer, and acknowledges what is durable here.
//!
//! What becomes of which header is in docs/brokers.md.

use std::path::PathBuf;
use std::pin::pin;
use std::time::Duration;

use async_nats::jetstream::consumer::{AckPolicy, pull};
use async_nats::jetstream::{AckKind, Context, Message};
use async_trait::async_trait;
use futures_util::{Stream, StreamExt as _};
use serde::Deserialize;
use tokio::sync::watch;

use super::{Delivery, Intake, PREFETCH, Receive, Source, keep_receiving, stopped};
use crate::broker::nats::{self, Link};
use crate::broker::{Access, Address};
use crate::clock::Timestamp;
use crate::manifest::Span;
use crate::message::Header;

/// After which the server delivers again what is neither acknowledged nor said to be under way.
const ACK_WAIT: Duration = Duration::from_secs(10);
/// Longest time for an answer.
const ANSWER: Duration = Duration::from_secs(5);
/// How long the server keeps a request for messages that do not come.
const WAIT: Duration = Duration::from_secs(20);

/// `[sources.NAME]` with `kind = "nats"`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NatsSettings {
    /// The topic that it feeds.
    pub topic: String,
    /// How long an id is remembered.
    pub window: Option<Span>,
    /// `nats://USER@HOST:PORT`, or `tls://`; servers of one cluster with commas between them.
    pub url: Address,
    /// A file with the user's password, if it is not in the URL.
    pub password_file: Option<PathBuf>,
    /// A file with the certificates that the server's may come from, in PEM; by default those that this machine trusts.
    pub ca_file: Option<PathBuf>,
    /// The stream.
    pub stream: String,
    /// The durable consumer of the stream.
    pub consumer: String,
    /// Whether to make the stream (of `subjects`) and the consumer.
    #[serde(default)]
    pub declare: bool,
    /// With `declare`: what the stream takes, and what of it comes here.
    #[serde(default)]
    pub subjects: Vec<String>,
}

/// A stream of NATS.
pub struct Nats {
    access: Access,
    settings: NatsSettings,
}

/// What messages come from, connected.
struct Session {
    link: Link,
    consumer: async_nats::jetstream::consumer::PullConsumer,
    /// Of the stream: what its numbers are unique in.
    stream: String,
    ack_wait: Duration,
}

impl Nats {
    /// # Errors
    /// If the URL is none, a file cannot be read, or settings contradict each other.
    pub fn new(settings: &NatsSettings) -> anyhow::Result<Self> {
        let NatsSettings { url, password_file, ca_file, subjects, declare, .. } = settings;
        anyhow::ensure!(*declare != subjects.is_empty(), "subjects and declare = true say together what to make");
        let access = Access::new(url, password_file.as_deref(), ca_file.as_deref(), nats::SCHEMES)?;
        Ok(Self { access, settings: settings.clone() })
    }

    async fn open(&self) -> Result<Session, String> {
        let link = nats::connect(&self.access, "semel source").await?;
        let jetstream = link.jetstream(ANSWER);
        let NatsSettings { stream, consumer, declare, subjects, .. } = &self.settings;
        if *declare {
            nats::declare_stream(&jetstream, stream, subjects.clone()).await?;
        }
        let found = jetstream.get_stream(stream).await;
        let found = found.map_err(|error| {
            format!("cannot use the stream \"{stream}\": make it, or let the source do so (declare = true): {error}")
        })?;
        let stream_id = format!("{stream}:{}", found.cached_info().created.unix_timestamp());
        let consumer = self.consumer(&jetstream, consumer).await?;
        let info = consumer.cached_info();
        if info.config.ack_policy != AckPolicy::Explicit || info.config.max_deliver > 0 {
            return Err(format!(
                "the consumer \"{}\" would lose messages: it needs the ack policy explicit, and no max deliver",
                info.name
            ));
        }
        let (ack_wait, waiting) = (info.config.ack_wait, info.num_ack_pending);
        if waiting > 0 {
            tracing::info!(stream, waiting, "waiting for what was delivered before and not acknowledged");
            // It comes again after that time, and before all that follows it.
            tokio::time::sleep(ack_wait).await;
        }
        Ok(Session { link, consumer, stream: stream_id, ack_wait })
    }

    async fn consumer(
        &self,
        jetstream: &Context,
        name: &str,
    ) -> Result<async_nats::jetstream::consumer::PullConsumer, String> {
        let NatsSettings { stream, declare, .. } = &self.settings;
        let cannot =
            |error: &dyn std::fmt::Display| format!("cannot use the consumer \"{name}\" of \"{stream}\": {error}");
        match jetstream.get_consumer_from_stream(name, stream).await {
            Ok(consumer) => return Ok(consumer),
            Err(error) if !*declare => {
                return Err(format!("{}; make it, or let the source do so (declare = true)", cannot(&error)));
            }
            Err(error) => tracing::debug!(%error, "no consumer yet"),
        }
        let config = pull::Config {
            durable_name: Some(name.to_owned()),
            ack_policy: AckPolicy::Explicit,
            ack_wait: ACK_WAIT,
            max_ack_pending: PREFETCH.into(),
            ..pull::Config::default()
        };
        jetstream.create_consumer_on_stream(config, stream).await.map_err(|error| cannot(&error))
    }
}

impl Session {
    /// What is there; if that is nothing, the next that comes, or nothing after a while.
    async fn fetch(&self) -> Result<Vec<Message>, String> {
        let most = usize::from(PREFETCH);
        let there = self.consumer.fetch().max_messages(most).expires(ANSWER).messages().await;
        let mut messages = collect(there.map_err(|error| error.to_string())?).await?;
        if messages.is_empty() {
            let next = self.consumer.batch().max_messages(1).expires(WAIT).messages().await;
            messages = collect(next.map_err(|error| error.to_string())?).await?;
        }
        if messages.is_empty() && !self.link.is_up() {
            return Err("the connection was lost".into());
        }
        Ok(messages)
    }

    /// Hands them over, and says meanwhile that they are under way.
    async fn hand_over(&self, intake: &dyn Intake, messages: &[Message]) -> bool {
        let deliveries = messages.iter().map(|message| self.read(message)).collect();
        let mut taken = pin!(intake.take(deliveries));
        loop {
            tokio::select! {
                taken = &mut taken => return taken,
                () = tokio::time::sleep(self.ack_wait / 3) => {
                    for message in messages {
                        let _ = message.ack_with(AckKind::Progress).await; // If it is not heard, they come again.
                    }
                }
            }
        }
    }

    /// As docs/brokers.md says.
    fn read(&self, message: &Message) -> Delivery {
        let all = message.headers.iter().flat_map(|headers| headers.iter());
        let mut headers: Vec<Header> = all
            .flat_map(|(name, values)| {
                values.iter().map(move |value| (name.to_string().to_lowercase(), value.to_string()))
            })
            .collect();
        headers.sort_by(|(one, _), (other, _)| one.cmp(other)); // They come in any order; several of one name keep theirs.
        let find = |name: &str| headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone());
        let some = |value: Option<String>| value.filter(|value| !value.is_empty());
        let (id, group, content_type) = (some(find("nats-msg-id")), some(find("semel-group")), find("content-type"));
        let mut native = vec![("nats-subject".to_owned(), message.subject.to_string())];
        let mut number = 0;
        if let Ok(info) = message.info() {
            number = info.stream_sequence;
            let time = i64::try_from(info.published.unix_timestamp_nanos() / 1_000).unwrap_or(i64::MAX);
            native.push(("nats-stream".into(), info.stream.to_owned()));
            native.push(("nats-sequence".into(), number.to_string()));
            native.push(("nats-time".into(), Timestamp(time).to_string()));
        }
        headers.retain(|(name, _)| name != "content-type" && !native.iter().any(|(ours, _)| ours == name));
        headers.extend(native);
        let id = id.unwrap_or_else(|| format!("{}:{number}", self.stream));
        Delivery { id, group, content_type, headers, body: message.payload.to_vec() }
    }
}

async fn collect(messages: impl Stream<Item = Result<Message, async_nats::Error>>) -> Result<Vec<Message>, String> {
    let mut messages = pin!(messages);
    let mut collected = Vec::new();
    while let Some(next) = messages.next().await {
        match next {
            Ok(message) => collected.push(message),
            // What came before it is as good as any.
            Err(error) if collected.is_empty() => return Err(error.to_string()),
            Err(_) => break,
        }
    }
    Ok(collected)
}

#[async_trait]
impl Receive for Nats {
    async fn receive(
        &self,
        intake: &dyn Intake,
        stop: &mut watch::Receiver<bool>,
        received: &mut bool,
    ) -> Result<(), String> {
        let session = tokio::select! {
            () = stopped(stop) => return Ok(()),
            session = self.open() => session?,
        };
        intake.stands(None);
        loop {
            let messages = tokio::select! {
                biased;
                () = stopped(stop) => break,
                messages = session.fetch() => messages?,
            };
            if messages.is_empty() {
                continue;
            }
            let taken = session.hand_over(intake, &messages).await;
            for message in &messages {
                // What the server does not hear of, it delivers again; what is not taken it may deliver at once.
                let kind = if taken { AckKind::Ack } else { AckKind::Nak(None) };
                message.ack_with(kind).await.map_err(|error| format!("cannot acknowledge: {error}"))?;
            }
            if !taken {
                break;
            }
            *received = true;
        }
        session.link.flush().await;
        Ok(())
    }
}

#[async_trait]
impl Source for Nats {
    async fn run(&self, intake: &dyn Intake, stop: watch::Receiver<bool>) {
        keep_receiving(self, intake, stop).await;
    }

    fn guarantee(&self) -> &'static str {
        "each message once by its Nats-Msg-Id, or by its number in the stream; what is delivered again is not handled again"
    }
}
