//! `outbox`: events that become messages with the commit of the current one, and never otherwise.

use std::time::Duration;

use super::View;
use super::bindings::semel::function::outbox as wit;
use crate::engine::limits::{EVENT_BYTES, MOST_HEADERS, MOST_PUBLISHED, NAME_BYTES, PUBLISHED_BYTES};
use crate::message::{Event, Header, published_event_id};
use crate::store::Published;

pub(crate) struct Outbox {
    message: String,
    granted: Vec<String>,
    /// Of bodies and headers, in all.
    bytes: usize,
    pub(crate) published: u32,
}

impl Outbox {
    pub(crate) fn new(message: &str, granted: &[String]) -> Self {
        Self { message: message.to_owned(), granted: granted.to_vec(), bytes: 0, published: 0 }
    }

    /// Whether this may be published after `ordinal` others of `bytes` in all.
    fn check(&self, event: &wit::Outgoing, ordinal: u32, bytes: usize) -> Result<(), wit::Error> {
        if !self.granted.contains(&event.topic) {
            return Err(wit::Error::Forbidden(format!(
                "topic \"{}\" is not granted; name it in [grants] topics of function.toml",
                event.topic
            )));
        }
        let long = |text: &Option<String>| text.as_ref().is_some_and(|text| text.len() > NAME_BYTES);
        if event.headers.len() > MOST_HEADERS || long(&event.group) || long(&event.content_type) {
            return Err(wit::Error::Forbidden(format!(
                "a message may have {MOST_HEADERS} headers, and a group and a content type of {NAME_BYTES} bytes"
            )));
        }
        let most = EVENT_BYTES.min(PUBLISHED_BYTES - bytes);
        if size(event) > most {
            return Err(wit::Error::TooLarge(most as u64));
        }
        if ordinal >= MOST_PUBLISHED { Err(wit::Error::Quota(MOST_PUBLISHED)) } else { Ok(()) }
    }
}

fn size(event: &wit::Outgoing) -> usize {
    size_of(&event.body, &event.headers)
}

/// What a body and its headers count as, in bytes.
pub(super) fn size_of(body: &[u8], headers: &[Header]) -> usize {
    body.len() + headers.iter().map(|(name, value)| name.len() + value.len() + 64).sum::<usize>()
}

impl View<'_, Outbox> {
    async fn send(&mut self, outgoing: Vec<wit::Outgoing>) -> wasmtime::Result<Result<Vec<String>, wit::Error>> {
        let mut events = Vec::with_capacity(outgoing.len());
        let mut bytes = self.own.bytes;
        for (ordinal, event) in (self.own.published..).zip(outgoing) {
            if let Err(error) = self.own.check(&event, ordinal, bytes) {
                return Ok(Err(error));
            }
            bytes += size(&event);
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
                self.own.bytes = bytes;
                self.own.published += u32::try_from(ids.len()).unwrap_or(u32::MAX);
                Ok(ids)
            }
            Some(Published::UnknownTopic(topic)) => Err(wit::Error::UnknownTopic(topic)),
            None => Err(wit::Error::Failed),
        })
    }
}

/// Headers that begin with `semel-` are the host's to give.
pub(super) fn without_reserved(mut headers: Vec<Header>) -> Vec<Header> {
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
