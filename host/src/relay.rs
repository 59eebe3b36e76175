//! The relay: sends what functions deferred, after their commits: claim → intend → send → settle.
//!
//! Before it: a commit left requests in the queue ([`crate::deferred`]). A request is sent at least once, with its id as
//! `Idempotency-Key`, and each try is in the ledger before its first byte leaves. Servers that are slow or away hold up
//! nobody but each other's requests: the places here are not those of [`crate::worker`].

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

use crate::calls::LedgerClient;
use crate::crash::{self, Point};
use crate::deferred::{Deferred, FUNCTION, LONGEST, VERSION};
use crate::manifest::Backoff;
use crate::message::{Answer, Claim, Claimed, Contract, Event, Header, Message, Outcome, Usage, published_event_id};
use crate::outside::{Called, Grants, NotSent, Request, Target};
use crate::running::Running;
use crate::settle::{Policy, Settlement, settle};
use crate::settled::Settled;
use crate::settlement::Settler;
use crate::store::{self, ClaimRequest, Intent, Lane, Published};

/// Requests on their way at once.
const SLOTS: usize = 32;
/// Longest time between two looks at the queue.
const POLL: Duration = Duration::from_secs(1);
/// Time for one try, where the guest gave none.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Renewed by the worker's heartbeat, as all leases of this host.
pub(crate) const LEASE: Duration = Duration::from_secs(10);
/// Bytes of an answer that are kept, and given to a reply topic.
const ANSWER_BYTES: usize = 256 << 10;

/// About two hours, then the request is dead.
pub(crate) const POLICY: Policy = Policy {
    contract: Contract::FinishOnce,
    max_attempts: 20,
    backoff: Backoff { initial: Duration::from_secs(1), factor: 2.0, max: Duration::from_secs(600), jitter: 0.5 },
};

pub(crate) struct Relay {
    pub(crate) settler: Settler,
    pub(crate) outside: Arc<LedgerClient>,
    pub(crate) running: Arc<Running>,
    pub(crate) settled: Arc<Settled>,
    /// Said when there may be something to send.
    pub(crate) sendable: Arc<Notify>,
    /// The id under which it claims; for people.
    pub(crate) host: String,
}

impl Relay {
    /// Sends until `stop` says so, then lets what is on its way end.
    pub(crate) async fn run(self: Arc<Self>, mut stop: watch::Receiver<bool>) {
        let mut sending = JoinSet::new();
        while !*stop.borrow() {
            while sending.try_join_next().is_some() {}
            if self.cycle(&mut sending).await > 0 {
                continue;
            }
            tokio::select! {
                () = self.sendable.notified(), if sending.len() < SLOTS => {}
                () = tokio::time::sleep(POLL), if sending.len() < SLOTS => {}
                Some(_) = sending.join_next() => {}
                _ = stop.changed() => {}
            }
        }
        while sending.join_next().await.is_some() {}
    }

    /// Claims what is due, and begins to send it. Returns how many that are.
    async fn cycle(self: &Arc<Self>, sending: &mut JoinSet<()>) -> usize {
        let mut count = 0;
        for suspects in [false, true] {
            let free = u32::try_from(SLOTS.saturating_sub(sending.len())).unwrap_or(0);
            if free == 0 {
                break;
            }
            let lanes = vec![lane(free)];
            let request = ClaimRequest { lanes, limit: free, suspects, host: self.host.clone() };
            match self.settler.store.claim(request).await {
                Ok(claimed) => {
                    count += claimed.len();
                    for claimed in claimed {
                        let relay = Arc::clone(self);
                        sending.spawn(async move { relay.handle(claimed).await });
                    }
                }
                Err(error) => tracing::error!(%error, "cannot claim what is to be sent"),
            }
        }
        count
    }

    /// One request from its claim to its settlement.
    async fn handle(&self, Claimed { claim, message }: Claimed) {
        let _place = self.running.enter(&claim);
        let began = Instant::now();
        let mut watched = self.settler.watch.attempt(&claim, &message, "external".into());
        let started_at = self.settler.store.now().await.ok();
        crash::point(Point::RelayClaimed);
        let outcome = self.send(&claim, &message).await;
        crash::point(Point::RelaySent);
        watched.ran(began.elapsed());
        let usage = Usage { started_at, ended_at: started_at.map(|at| at.plus(began.elapsed())), ..Usage::default() };
        let (kind, reason) = (outcome.as_str(), outcome.reason());
        let settlement = settle(&outcome, claim.attempts_counted(), &POLICY, rand::random());
        let reply = reply(&message, &outcome).filter(|_| settlement.retry_after().is_none());
        let end = match (settlement, outcome) {
            (Settlement::Commit, Outcome::Completed(answer)) => self.finish(&claim, answer, reply, usage).await,
            // Somebody waits to be told, and telling is the end of it.
            (Settlement::Bury, _) if reply.is_some() => self.finish(&claim, None, reply, usage).await,
            (settlement, _) => {
                self.settler.record(&claim, kind, reason.clone(), settlement.retry_after(), usage).await;
                kind
            }
        };
        watched.ended(end, &reason, None);
        self.settled.notify(&message.id);
    }

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
        match self.outside.record(intent, self.outside.client.call(request, &grants, until)).await {
            Ok(called) => outcome(called),
            Err(store::Error::Fenced) => Outcome::ClaimLost,
            Err(error) => Outcome::HostFailed(format!("the ledger of outside calls is not available: {error}")),
        }
    }

    /// Acknowledges, with the reply in the same commit.
    async fn finish(&self, claim: &Claim, answer: Option<Answer>, reply: Option<Event>, usage: Usage) -> &'static str {
        let mut session = self.settler.store.session();
        session.enter(claim);
        if let Some(reply) = reply {
            let topic = reply.topic.clone();
            if let Err(error) = session.open().await {
                tracing::warn!(%error, "the reply to a request cannot be published; it will be sent again");
                session.rollback().await;
                let reason = "the database is not available".into();
                self.settler.record(claim, "doomed", reason, Some(POLICY.backoff.initial), usage).await;
                return "doomed";
            }
            match session.publish(vec![reply]).await {
                Ok(Published::Done) => {}
                Ok(Published::UnknownTopic(_)) => {
                    tracing::warn!(topic, "nobody subscribes to the reply topic of a request any more");
                }
                Err(error) => tracing::warn!(?error, topic, "the reply to a request was not published"),
            }
        }
        session.leave(answer, usage.clone());
        self.settler.commit(claim, session, &POLICY, usage).await
    }
}

fn lane(limit: u32) -> Lane {
    Lane {
        function: FUNCTION.into(),
        version: VERSION,
        contract: POLICY.contract,
        max_attempts: POLICY.max_attempts,
        lease: LEASE,
        limit,
        concurrency: None,
        rate: None,
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
