//! NATS JetStream: publishes, and waits until a stream has it. The stream drops what it has had before.
//!
//! What is in which header is in docs/brokers.md.

use std::error::Error as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::context::{PublishAckFuture, PublishError, PublishErrorKind};
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::{self, Context, ErrorCode};
use async_nats::{HeaderMap, HeaderName, HeaderValue};
use async_trait::async_trait;
use serde::Deserialize;
use tokio::time::{Instant, timeout_at};

use super::{Outgoing, Sent, Sink};
use crate::broker::nats::{self, Link};
use crate::broker::{self, Access, Address, fill};

/// Longest time for one call, and for one request in it.
const LONGEST: Duration = Duration::from_secs(12);
const ANSWER: Duration = Duration::from_secs(8);
/// Events of one call, and calls at once.
const ROOM: (usize, usize) = (128, 4);

/// `[sinks.NAME]` with `kind = "nats"`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NatsSettings {
    /// Topics whose events are sent there.
    pub topics: Vec<String>,
    /// `nats://USER@HOST:PORT`, or `tls://`; servers of one cluster with commas between them.
    pub url: Address,
    /// A file with the user's password, if it is not in the URL.
    pub password_file: Option<PathBuf>,
    /// A file with the certificates that the server's may come from, in PEM; by default those that this machine trusts.
    pub ca_file: Option<PathBuf>,
    /// On which subject it is published; `{topic}` in it is the event's topic, which is the default.
    #[serde(default = "broker::topic")]
    pub subject: String,
    /// A stream to make, for the subjects of all topics. By default there must be one that takes them.
    pub declare: Option<String>,
}

/// NATS servers with JetStream.
pub struct Nats {
    access: Access,
    settings: NatsSettings,
    session: tokio::sync::Mutex<Option<Arc<Session>>>,
}

struct Session {
    link: Link,
    jetstream: Context,
}

impl Nats {
    /// # Errors
    /// If the URL is none, or a file cannot be read.
    pub fn new(settings: &NatsSettings) -> anyhow::Result<Self> {
        let NatsSettings { url, password_file, ca_file, .. } = settings;
        let access = Access::new(url, password_file.as_deref(), ca_file.as_deref(), nats::SCHEMES)?;
        Ok(Self { access, settings: settings.clone(), session: tokio::sync::Mutex::default() })
    }

    /// The one that there is, if it is good, else a new one.
    async fn session(&self) -> Result<Arc<Session>, String> {
        let mut session = self.session.lock().await;
        if let Some(session) = session.as_ref().filter(|session| session.link.is_up()) {
            return Ok(Arc::clone(session));
        }
        *session = None;
        let link = nats::connect(&self.access, "semel sink").await?;
        let opened = Session { jetstream: link.jetstream(ANSWER), link };
        if let Some(stream) = &self.settings.declare {
            let NatsSettings { topics, subject, .. } = &self.settings;
            let subjects = topics.iter().map(|topic| fill(subject, topic)).collect();
            nats::declare_stream(&opened.jetstream, stream, subjects).await?;
        }
        Ok(Arc::clone(session.insert(Arc::new(opened))))
    }

    async fn begin(&self, session: &Session, event: &Outgoing) -> Result<PublishAckFuture, Unsent> {
        let subject = fill(&self.settings.subject, &event.topic);
        check(&subject).map_err(Unsent::Not)?;
        let message = PublishMessage::build().headers(headers(event).map_err(Unsent::Not)?);
        let message = message.message_id(&event.id).payload(event.body.clone().into());
        session.jetstream.send_publish(subject, message).await.map_err(Unsent::Failed)
    }

    async fn forget(&self, session: &Arc<Session>) {
        let mut known = self.session.lock().await;
        if known.as_ref().is_some_and(|known| Arc::ptr_eq(known, session)) {
            *known = None;
        }
    }
}

/// Why there is no answer of a stream that it has an event.
enum Unsent {
    /// It cannot be said to a server.
    Not(String),
    Failed(PublishError),
}

#[async_trait]
impl Sink for Nats {
    async fn send(&self, events: &[Outgoing]) -> Vec<Sent> {
        let until = Instant::now() + LONGEST;
        let session = match timeout_at(until, self.session()).await {
            Ok(Ok(session)) => session,
            Ok(Err(reason)) => return vec![Sent::Closed(reason); events.len()],
            Err(_) => return vec![Sent::Closed("the server does not answer".into()); events.len()],
        };
        let mut begun = Vec::new();
        for event in events {
            let silence = || Err(Unsent::Failed(PublishError::new(PublishErrorKind::TimedOut)));
            begun.push(timeout_at(until, self.begin(&session, event)).await.unwrap_or_else(|_| silence()));
        }
        let (mut all, mut silent) = (Vec::new(), false);
        for (begun, event) in begun.into_iter().zip(events) {
            let answer = match begun {
                Err(error) => Err(error),
                Ok(answer) => match timeout_at(until, answer.into_future()).await {
                    Ok(Ok(_)) => Ok(()),
                    Ok(Err(error)) => Err(Unsent::Failed(error)),
                    Err(_) => Err(Unsent::Failed(PublishError::new(PublishErrorKind::TimedOut))),
                },
            };
            silent |= matches!(&answer, Err(Unsent::Failed(error)) if error.kind() == PublishErrorKind::TimedOut);
            all.push(match answer {
                Ok(()) => Sent::Taken,
                Err(Unsent::Not(reason)) => Sent::Never(reason),
                Err(Unsent::Failed(error)) => sent(&error, &fill(&self.settings.subject, &event.topic), &session),
            });
        }
        if silent {
            self.forget(&session).await;
        }
        all
    }

    fn room(&self) -> (usize, usize) {
        ROOM
    }

    fn guarantee(&self) -> &'static str {
        "at least once; the stream drops duplicates by Nats-Msg-Id within its duplicate window (2 minutes unless it is set)"
    }
}

/// What the end of a try means.
fn sent(error: &PublishError, subject: &str, session: &Session) -> Sent {
    let again = |reason: String| Sent::Again { reason, after: None };
    let answer = error.source().and_then(|source| source.downcast_ref::<jetstream::Error>());
    match (error.kind(), answer) {
        (PublishErrorKind::MaxPayloadExceeded, _) => Sent::Never(error.to_string()),
        (_, Some(answer)) => match answer.error_code() {
            ErrorCode::STREAM_MESSAGE_EXCEEDS_MAXIMUM | ErrorCode::STREAM_HEADER_EXCEEDS_MAXIMUM => {
                Sent::Never(format!("the stream says {answer}"))
            }
            _ => again(format!("the stream does not take it: {answer}")),
        },
        (PublishErrorKind::StreamNotFound, _) => again(format!(
            "no stream takes the subject \"{subject}\": make one, or let the sink do so (declare = \"NAME\")"
        )),
        (PublishErrorKind::TimedOut, _) => again(match session.link.complaint() {
            Some(complaint) => format!("no stream confirmed it; the server says {complaint}"),
            None => "no stream confirmed it in time".into(),
        }),
        _ => again(format!("the connection was lost before the stream confirmed: {error}")),
    }
}

/// Publishing to a pattern is no error to a server: nobody would get it.
fn check(subject: &str) -> Result<(), String> {
    let good = |token: &str| {
        let odd = |c: char| c.is_whitespace() || c.is_control() || c == '*' || c == '>';
        !token.is_empty() && !token.contains(odd)
    };
    if subject.split('.').all(good) {
        Ok(())
    } else {
        Err(format!("\"{}\" is no subject of NATS", subject.escape_debug()))
    }
}

/// As docs/brokers.md says. Names that begin with `Nats-` are orders to the server: the publisher's are left out.
fn headers(event: &Outgoing) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    let mut add = |name: &str, value: &str| {
        let cannot = || format!("the header \"{}\" cannot stand in a message of NATS", name.escape_debug());
        let value: HeaderValue = value.parse().map_err(|_| cannot())?;
        headers.append(name.parse::<HeaderName>().map_err(|_| cannot())?, value);
        Ok::<_, String>(())
    };
    let ours = ["semel-topic", "semel-group", "semel-time", "content-type"];
    for (name, value) in &event.headers {
        let lower = name.to_lowercase();
        if !lower.starts_with("nats-") && !ours.contains(&lower.as_str()) {
            add(name, value)?;
        }
    }
    add("Semel-Topic", &event.topic)?;
    add("Semel-Time", &event.time.to_string())?;
    if let Some(group) = &event.group {
        add("Semel-Group", group)?;
    }
    if let Some(kind) = &event.content_type {
        add("Content-Type", kind)?;
    }
    Ok(headers)
}
