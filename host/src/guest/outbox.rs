//! `outbox`: events that become messages with the commit of the current one, and never otherwise.

use std::time::Duration;

use super::View;
use super::bindings::semel::function::outbox as wit;
use crate::message::{Event, published_event_id};
use crate::store::Published;

/// Messages that one attempt may publish.
const QUOTA: u32 = 1000;
/// Largest body with its headers, in bytes.
const LARGEST_BODY: usize = 1 << 20;

pub(crate) struct Outbox {
    message: String,
    granted: Vec<String>,
    pub(crate) published: u32,
}

impl Outbox {
    pub(crate) fn new(message: &str, granted: &[String]) -> Self {
        Self { message: message.to_owned(), granted: granted.to_vec(), published: 0 }
    }

    fn check(&self, event: &wit::Outgoing, ordinal: u32) -> Result<(), wit::Error> {
        if !self.granted.contains(&event.topic) {
            return Err(wit::Error::Forbidden(format!(
                "topic \"{}\" is not granted; name it in [grants] topics of function.toml",
                event.topic
            )));
        }
        let headers: usize = event.headers.iter().map(|(name, value)| name.len() + value.len() + 64).sum();
        if event.body.len() + headers > LARGEST_BODY {
            return Err(wit::Error::TooLarge(LARGEST_BODY as u64));
        }
        if ordinal >= QUOTA { Err(wit::Error::Quota(QUOTA)) } else { Ok(()) }
    }
}

impl View<'_, Outbox> {
    async fn send(&mut self, outgoing: Vec<wit::Outgoing>) -> wasmtime::Result<Result<Vec<String>, wit::Error>> {
        let mut events = Vec::with_capacity(outgoing.len());
        for (ordinal, event) in (self.own.published..).zip(outgoing) {
            if let Err(error) = self.own.check(&event, ordinal) {
                return Ok(Err(error));
            }
            events.push(Event {
                id: published_event_id(&self.own.message, ordinal),
                topic: event.topic,
                group: event.group,
                content_type: event.content_type,
                headers: without_reserved(event.headers),
                body: event.body,
                priority: 0,
                delay: Duration::from_millis(event.delay.unwrap_or(0)),
            });
        }
        let ids: Vec<String> = events.iter().map(|event| event.id.clone()).collect();
        Ok(match self.transaction.publish(events).await? {
            Some(Published::Done) => {
                self.own.published += u32::try_from(ids.len()).unwrap_or(u32::MAX);
                Ok(ids)
            }
            Some(Published::UnknownTopic(topic)) => Err(wit::Error::UnknownTopic(topic)),
            None => Err(wit::Error::Failed),
        })
    }
}

/// Headers that begin with `semel-` are the host's to give.
fn without_reserved(mut headers: Vec<(String, String)>) -> Vec<(String, String)> {
    headers.retain(|(name, _)| !name.to_ascii_lowercase().starts_with("semel-"));
    headers
}

impl wit::Host for View<'_, Outbox> {
    async fn publish(&mut self, event: wit::Outgoing) -> wasmtime::Result<Result<String, wit::Error>> {
        Ok(self.send(vec![event]).await?.map(|mut ids| ids.pop().unwrap_or_default()))
    }

    async fn publish_all(&mut self, events: Vec<wit::Outgoing>) -> wasmtime::Result<Result<Vec<String>, wit::Error>> {
        self.send(events).await
    }
}
