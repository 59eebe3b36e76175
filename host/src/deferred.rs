//! A request that is sent after the commit, as it stands in the queue: one message of the function [`FUNCTION`], which is
//! the host itself ([`crate::relay`]). So it is claimed, retried, buried, redriven and forgotten as all messages are.
//!
//! What belongs to the request stands in headers that only the host can write, beside those that are sent; the body is the
//! request's.

use std::time::Duration;

use crate::message::{Event, Header, deferred_event_id, message_id};

/// The function that sends, and the topic that it alone subscribes to. Nobody can deploy it or publish to it.
pub const FUNCTION: &str = "deferred-http";
/// Its version: what it does is a part of the program, and no row of the database.
pub(crate) const VERSION: i64 = 1;

/// Longest time for one try to send it.
pub const LONGEST: Duration = Duration::from_secs(20);

const METHOD: &str = "semel-deferred-method";
const URL: &str = "semel-deferred-url";
const TIMEOUT: &str = "semel-deferred-timeout-ms";
const REPLY: &str = "semel-deferred-reply-topic";
const BY: &str = "semel-deferred-by";
const OF: &str = "semel-deferred-of";

/// A request that waits to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deferred {
    /// The method.
    pub method: String,
    /// The whole URL.
    pub url: String,
    /// Headers to send, in order.
    pub headers: Vec<Header>,
    /// Time for one try, if the guest gave one.
    pub timeout: Option<Duration>,
    /// The topic that the answer goes to.
    pub reply_topic: Option<String>,
    /// The function that asked for it.
    pub by: String,
    /// The message that it handled.
    pub of: String,
}

impl Deferred {
    /// The event for the queue; `ordinal` counts the requests of a run from 0. With it comes the id under which the
    /// request is known: that of its message, equal on every attempt, and the `Idempotency-Key` that is sent.
    #[must_use]
    pub fn into_event(self, body: Vec<u8>, ordinal: u32) -> (String, Event) {
        let id = deferred_event_id(&self.of, ordinal);
        let mut headers = self.headers;
        let mut add = |name: &str, value| headers.push((name.to_owned(), value));
        add(METHOD, self.method);
        add(URL, self.url);
        add(BY, self.by);
        add(OF, self.of);
        if let Some(timeout) = self.timeout {
            add(TIMEOUT, timeout.as_millis().to_string());
        }
        if let Some(topic) = self.reply_topic {
            add(REPLY, topic);
        }
        let request = message_id(&id, FUNCTION);
        (request, Event { id, topic: FUNCTION.to_owned(), headers, body, ..Event::default() })
    }

    /// From the headers of its message. None if they are not those of a request.
    #[must_use]
    pub fn read(headers: &[Header]) -> Option<Self> {
        let find = |name: &str| headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone());
        let own = [METHOD, URL, TIMEOUT, REPLY, BY, OF];
        Some(Self {
            method: find(METHOD)?,
            url: find(URL)?,
            headers: headers.iter().filter(|(name, _)| !own.contains(&name.as_str())).cloned().collect(),
            timeout: find(TIMEOUT).and_then(|millis| millis.parse().ok()).map(Duration::from_millis),
            reply_topic: find(REPLY),
            by: find(BY)?,
            of: find(OF)?,
        })
    }

    /// The URL for people: without its query, where secrets are.
    #[must_use]
    pub fn shown(&self) -> &str {
        self.url.split(['?', '#']).next().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_is_what_was_written() {
        let deferred = Deferred {
            method: "POST".into(),
            url: "https://mail.example/send?key=secret".into(),
            headers: vec![("content-type".into(), "text/plain".into()), ("x".into(), "1".into())],
            timeout: Some(Duration::from_millis(1500)),
            reply_topic: Some("sent".into()),
            by: "mailer".into(),
            of: "m".into(),
        };
        let (id, event) = deferred.clone().into_event(b"hello".to_vec(), 0);
        assert_eq!((event.topic.as_str(), event.body.as_slice()), (FUNCTION, &b"hello"[..]));
        assert_eq!(Deferred::read(&event.headers), Some(deferred.clone()));
        assert_eq!(id, message_id(&event.id, FUNCTION));
        assert_eq!(deferred.clone().into_event(Vec::new(), 0).0, id, "equal on every attempt");
        assert_ne!(deferred.clone().into_event(Vec::new(), 1).0, id, "and another for the next");
        assert_eq!(deferred.shown(), "https://mail.example/send");
        assert_eq!(Deferred::read(&[]), None);
    }
}
