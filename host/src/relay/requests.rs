//! Requests that functions deferred ([`crate::deferred`]): each is sent with its id as `Idempotency-Key`, and each try is in
//! the ledger before its first byte leaves.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures_util::future::join_all;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};

use super::{Carried, Way};
use crate::calls::LedgerClient;
use crate::deferred::{Deferred, FUNCTION, LONGEST};
use crate::message::{Answer, Claim, Claimed, Event, Header, Message, Outcome, published_event_id};
use crate::outside::{Called, Grants, NotSent, Request, Target};
use crate::store::{self, Intent};

/// Requests on their way at once.
const SLOTS: usize = 32;
/// Time for one try, where the guest gave none.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of an answer that are kept, and given to a reply topic.
const ANSWER_BYTES: usize = 256 << 10;

/// How they leave.
pub(crate) struct Requests(pub(crate) Arc<LedgerClient>);

#[async_trait]
impl Way for Requests {
    fn function(&self) -> &str {
        FUNCTION
    }

    fn room(&self) -> (usize, usize) {
        (1, SLOTS)
    }

    async fn carry(&self, load: &[Claimed]) -> Vec<Carried> {
        let carry = async |Claimed { claim, message }: &Claimed| {
            let outcome = self.send(claim, message).await;
            let publishes = reply(message, &outcome);
            Carried { publishes, ..Carried::new(outcome) }
        };
        join_all(load.iter().map(carry)).await
    }
}

impl Requests {
    async fn send(&self, claim: &Claim, message: &Message) -> Outcome {
        let Some(deferred) = Deferred::read(&message.headers) else {
            return Outcome::Refused("this is no request of deferred-http".into());
        };
        let (target, method) = match (Target::parse(&deferred.url), Method::from_bytes(deferred.method.as_bytes())) {
            (Ok(target), Ok(method)) => (target, method),
            _ => return Outcome::Refused("the request cannot be read".into()),
        };
        let intent = Intent {
            message: message.id.clone(),
            function: message.function.clone(),
            fence: claim.fence,
            attempt: claim.attempt,
            ordinal: 0,
            method: deferred.method.clone(),
            url: target.shown(),
            key: message.id.clone(),
        };
        let grants = Grants::of(target.origin.clone()); // It was granted when it was deferred.
        let request = Request {
            method,
            target,
            headers: headers(&deferred.headers),
            body: message.body.clone().into(),
            key: Some(message.id.clone()),
            connect: None,
            first_byte: None,
            answer: ANSWER_BYTES,
        };
        let until = Instant::now() + deferred.timeout.unwrap_or(TIMEOUT).min(LONGEST);
        match self.0.record(intent, self.0.client.call(request, &grants, until)).await {
            Ok(called) => outcome(called),
            Err(store::Error::Fenced) => Outcome::ClaimLost,
            Err(error) => Outcome::HostFailed(format!("the ledger of outside calls is not available: {error}")),
        }
    }
}

/// As they were checked when the request was deferred.
fn headers(pairs: &[Header]) -> HeaderMap {
    let read = |(name, value): &Header| Some((name.parse::<HeaderName>().ok()?, value.parse::<HeaderValue>().ok()?));
    let mut headers = HeaderMap::new();
    for (name, value) in pairs.iter().filter_map(read) {
        headers.append(name, value);
    }
    headers
}

/// What the end of a try means: sent, try again, or never.
fn outcome(called: Called) -> Outcome {
    let again = |reason: String, delay| Outcome::Failed { reason, delay };
    let answer = match called {
        Called::Answered(answer) => answer,
        Called::NotSent(why @ (NotSent::Refused(_) | NotSent::Invalid(_))) => return Outcome::Refused(why.to_string()),
        Called::NotSent(why) => return again(why.to_string(), None),
        Called::Unknown(why) => return again(why.to_string(), None),
    };
    let text = |name| answer.headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok()).map(str::to_owned);
    let said = format!("the server answered {}", answer.status);
    match answer.status {
        status if status.is_success() => Outcome::Completed(Some(Answer {
            content_type: text(header::CONTENT_TYPE),
            headers: vec![(STATUS.into(), status.as_u16().to_string())],
            body: answer.body.map(Vec::from).unwrap_or_default(),
        })),
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY | StatusCode::TOO_MANY_REQUESTS => {
            again(said, text(header::RETRY_AFTER).and_then(|seconds| seconds.parse().ok()).map(Duration::from_secs))
        }
        status if status.is_server_error() => {
            again(said, text(header::RETRY_AFTER).and_then(|seconds| seconds.parse().ok()).map(Duration::from_secs))
        }
        _ => Outcome::Refused(said),
    }
}

const STATUS: &str = "semel-deferred-status";

/// The event for the topic that wants to know how it ended.
fn reply(message: &Message, outcome: &Outcome) -> Option<Event> {
    let topic = Deferred::read(&message.headers)?.reply_topic?;
    let mut event = Event { id: published_event_id(&message.id, 0), topic, ..Event::default() };
    event.headers.push(("semel-deferred-id".into(), message.id.clone()));
    match outcome {
        Outcome::Completed(Some(answer)) => {
            event.content_type.clone_from(&answer.content_type);
            event.headers.extend(answer.headers.clone());
            event.body.clone_from(&answer.body);
        }
        other => event.headers.push(("semel-deferred-error".into(), other.reason())),
    }
    Some(event)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outside::Lost;

    fn answered(status: u16, headers: &[(HeaderName, &'static str)]) -> Outcome {
        let headers = headers.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value))).collect();
        let status = StatusCode::from_u16(status).expect("a status");
        outcome(Called::Answered(crate::outside::Answer { status, headers, body: Ok(bytes::Bytes::new()) }))
    }

    #[test]
    fn what_may_help_is_tried_again_and_what_cannot_is_not() {
        for status in [200, 201, 204] {
            assert_eq!(answered(status, &[]).as_str(), "completed");
        }
        for status in [301, 307, 400, 401, 404, 409, 410, 422] {
            assert_eq!(answered(status, &[]).as_str(), "refused", "{status}");
        }
        for status in [408, 425, 429, 500, 502, 503, 504] {
            assert_eq!(answered(status, &[]).as_str(), "failed", "{status}");
        }
        let later = answered(429, &[(header::RETRY_AFTER, "7")]);
        assert!(matches!(later, Outcome::Failed { delay: Some(delay), .. } if delay == Duration::from_secs(7)));
        for (called, kind) in [
            (Called::NotSent(NotSent::Refused("x".into())), "refused"),
            (Called::NotSent(NotSent::Unreachable("x".into())), "failed"),
            (Called::NotSent(NotSent::TooLate), "failed"),
            (Called::Unknown(Lost::TooLate), "failed"),
        ] {
            assert_eq!(outcome(called).as_str(), kind);
        }
    }
}
