//! The relay: takes out of the queue what is not for functions, and hands it over: claim → carry → settle.
//!
//! Before it: a commit left messages of the host's own functions ([`Way::function`]) in the queue: requests that were deferred,
//! events for sinks. Each is carried at least once, with an id that is equal on every attempt. Each way has a loop of its own,
//! so that a server that is slow or away holds up nobody but those who are for it; the places here are not those of
//! [`crate::worker`].

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

use crate::bell::Bell;
use crate::crash::{self, Point};
use crate::manifest::Backoff;
use crate::message::{Answer, Claim, Claimed, Contract, Event, Outcome, Usage};
use crate::running::Running;
use crate::settle::{Policy, Settlement, settle};
use crate::settled::Settled;
use crate::settlement::Settler;
use crate::store::{ClaimRequest, Known, Lane, Published};
use crate::watch::Attempt;

mod letters;
mod requests;
mod sinks;

pub(crate) use letters::Letters;
pub(crate) use requests::Requests;
pub(crate) use sinks::Events;

/// Longest time between two looks at the queue.
const POLL: Duration = Duration::from_secs(1);
/// Renewed by the worker's heartbeat, as all leases of this host.
pub(crate) const LEASE: Duration = Duration::from_secs(10);

/// About two hours, then the message is dead.
pub(crate) const POLICY: Policy = Policy {
    contract: Contract::FinishOnce,
    max_attempts: 20,
    backoff: Backoff { initial: Duration::from_secs(1), factor: 2.0, max: Duration::from_secs(600), jitter: 0.5 },
};
/// Between two tries at a way that is closed.
const REST: Backoff =
    Backoff { initial: Duration::from_millis(500), factor: 2.0, max: Duration::from_secs(15), jitter: 0.5 };

/// How messages of one function of the host's own leave it.
#[async_trait]
pub(crate) trait Way: Send + Sync {
    /// Whose messages these are; as a label, and in the queue.
    fn function(&self) -> &str;

    /// So many messages are carried together, and so many such loads are on their way at once.
    fn room(&self) -> (usize, usize);

    /// Carries them; as many answers as messages, in their order. What it takes to time is bounded.
    async fn carry(&self, load: &[Claimed]) -> Vec<Carried>;
}

/// What became of a message.
pub(crate) struct Carried {
    outcome: Outcome,
    /// What is published in the same commit, unless it is tried again.
    publishes: Option<Event>,
    /// Whether the message is dead if nobody subscribes to that.
    needed: bool,
    /// The way itself is closed: not this message's fault, and the others would fare no better.
    closed: bool,
}

impl Carried {
    fn new(outcome: Outcome) -> Self {
        Self { outcome, publishes: None, needed: false, closed: false }
    }
}

/// What all ways share.
#[derive(Clone)]
pub(crate) struct Relay {
    pub(crate) settler: Settler,
    pub(crate) running: Arc<Running>,
    pub(crate) settled: Arc<Settled>,
    /// The id under which it claims; for people.
    pub(crate) host: String,
}

/// A message on its way.
struct Underway {
    claim: Claim,
    id: String,
    watched: Attempt,
    usage: Usage,
}

impl Relay {
    /// All ways, each by itself, until `stop` says so and what is on its way has ended.
    pub(crate) async fn run(self, ways: Vec<Arc<dyn Way>>, bell: &Bell, stop: watch::Receiver<bool>) {
        let mut loops = JoinSet::new();
        for (way, rung) in ways.into_iter().zip(bell.ways()) {
            loops.spawn(self.clone().follow(way, Arc::clone(rung), stop.clone()));
        }
        loops.join_all().await;
    }

    async fn follow(self, way: Arc<dyn Way>, rung: Arc<Notify>, mut stop: watch::Receiver<bool>) {
        let (most, at_once) = way.room();
        let (mut under_way, mut in_vain, mut closed_until) = (JoinSet::new(), 0_u32, Instant::now());
        while !*stop.borrow() {
            // One message finds out whether a closed way is open again.
            let (loads, size) = if in_vain == 0 { (at_once, most) } else { (1, 1) };
            let closed_for = closed_until.saturating_duration_since(Instant::now());
            let room = if closed_for.is_zero() { loads.saturating_sub(under_way.len()) } else { 0 };
            let mut claimed = self.claim(way.as_ref(), room, size).await;
            let found = !claimed.is_empty();
            while !claimed.is_empty() {
                let load = claimed.drain(..claimed.len().min(most)).collect();
                let (relay, way) = (self.clone(), Arc::clone(&way));
                under_way.spawn(async move { relay.handle(way.as_ref(), load).await });
            }
            let has_room = under_way.len() < loads;
            if found && has_room {
                continue;
            }
            tokio::select! {
                () = rung.notified(), if closed_for.is_zero() && has_room => {}
                () = tokio::time::sleep(if closed_for.is_zero() { POLL } else { closed_for }), if has_room => {}
                Some(ended) = under_way.join_next() => match ended {
                    Ok(trouble) => {
                        in_vain = self.stands(way.as_ref(), in_vain, trouble);
                        let rest = if in_vain > 0 { REST.after(in_vain, rand::random()) } else { Duration::ZERO };
                        closed_until = Instant::now() + rest;
                    }
                    Err(error) => tracing::error!(%error, way = way.function(), "a load was lost; its leases will end"),
                },
                _ = stop.changed() => {}
            }
        }
        while under_way.join_next().await.is_some() {}
    }

    /// Returns how many loads in a row have found the way closed.
    fn stands(&self, way: &dyn Way, in_vain: u32, trouble: Option<String>) -> u32 {
        let standings = &self.settler.watch.standings;
        match trouble {
            None => {
                if in_vain > 0 {
                    tracing::info!(way = way.function(), "open again");
                }
                standings.set(way.function(), None);
                0
            }
            Some(reason) => {
                if in_vain == 0 {
                    tracing::warn!(way = way.function(), reason, "closed; what is for it waits");
                }
                standings.set(way.function(), Some(reason));
                in_vain.saturating_add(1)
            }
        }
    }

    /// Claims what is due: at most so many loads of so many messages.
    async fn claim(&self, way: &dyn Way, loads: usize, most: usize) -> Vec<Claimed> {
        let mut all = Vec::new();
        for suspects in [false, true] {
            let free = u32::try_from((loads * most).saturating_sub(all.len())).unwrap_or(u32::MAX);
            if free == 0 {
                break;
            }
            let lanes = vec![lane(way.function(), free)];
            let request = ClaimRequest { lanes, limit: free, suspects, host: self.host.clone() };
            match self.settler.store.claim(request).await {
                Ok(claimed) => all.extend(claimed),
                Err(error) => tracing::error!(%error, way = way.function(), "cannot claim what is to be sent"),
            }
        }
        all
    }

    /// One load from its claims to their settlement. Returns why the way is closed, if it is.
    async fn handle(&self, way: &dyn Way, load: Vec<Claimed>) -> Option<String> {
        let _places: Vec<_> = load.iter().map(|one| self.running.enter(&one.claim)).collect();
        let began = Instant::now();
        let watch = |one: &Claimed| self.settler.watch.attempt(&one.claim, &one.message, "external".into());
        let watched: Vec<_> = load.iter().map(watch).collect();
        let started_at = self.settler.store.now().await.ok();
        crash::point(Point::RelayClaimed);
        let carried = way.carry(&load).await;
        crash::point(Point::RelaySent);
        let usage = Usage { started_at, ended_at: started_at.map(|at| at.plus(began.elapsed())), ..Usage::default() };
        let trouble = trouble(&carried);
        let (mut taken, mut others) = (Vec::new(), Vec::new());
        for ((Claimed { claim, message }, watched), carried) in load.into_iter().zip(watched).zip(carried) {
            watched.ran(began.elapsed());
            let underway = Underway { claim, id: message.id, watched, usage: usage.clone() };
            match carried {
                Carried { outcome: Outcome::Completed(None), publishes: None, .. } => taken.push(underway),
                other => others.push((underway, other)),
            }
        }
        self.finish_all(taken).await;
        for (underway, carried) in others {
            self.end(underway, carried).await;
        }
        trouble
    }

    /// Acknowledges all of them in one commit; if it does not come to that, each by itself.
    async fn finish_all(&self, taken: Vec<Underway>) {
        if taken.len() > 1 {
            let claims: Vec<&Claim> = taken.iter().map(|one| &one.claim).collect();
            let mut session = self.settler.store.session();
            session.share(&claims);
            for one in &taken {
                session.enter(&one.claim);
                session.leave(None, one.usage.clone());
            }
            if self.settler.commit_all(&claims, session).await == Known::Committed {
                taken.into_iter().for_each(|one| self.ended(one, "completed", ""));
                return;
            }
        }
        for one in taken {
            self.end(one, Carried::new(Outcome::Completed(None))).await;
        }
    }

    async fn end(&self, underway: Underway, carried: Carried) {
        let (claim, usage) = (&underway.claim, underway.usage.clone());
        let Carried { outcome, publishes, needed, closed } = carried;
        let (kind, reason) = (outcome.as_str(), outcome.reason());
        let settlement = match settle(&outcome, claim.attempts_counted(), &POLICY, rand::random()) {
            Settlement::Bury if closed => Settlement::Retry { after: POLICY.backoff.max },
            settlement => settlement,
        };
        let end = match (settlement, outcome) {
            (Settlement::Commit, Outcome::Completed(answer)) => {
                self.finish(claim, answer, publishes, needed, usage).await
            }
            // Somebody waits to be told, and telling is the end of it.
            (Settlement::Bury, _) if publishes.is_some() => self.finish(claim, None, publishes, needed, usage).await,
            (settlement, _) => {
                self.settler.record(claim, kind, reason.clone(), settlement.retry_after(), usage).await;
                kind
            }
        };
        self.ended(underway, end, &reason);
    }

    fn ended(&self, mut underway: Underway, end: &'static str, reason: &str) {
        underway.watched.ended(end, reason, None);
        self.settled.notify(&underway.id, None);
    }

    /// Acknowledges, with what is published in the same commit.
    async fn finish(
        &self,
        claim: &Claim,
        answer: Option<Answer>,
        event: Option<Event>,
        needed: bool,
        usage: Usage,
    ) -> &'static str {
        let mut session = self.settler.store.session();
        session.enter(claim);
        if let Some(event) = event {
            let topic = event.topic.clone();
            if let Err(error) = session.open().await {
                tracing::warn!(%error, topic, "an event cannot be published with its message; it will be tried again");
                session.rollback().await;
                let reason = "the database is not available".into();
                self.settler.record(claim, "doomed", reason, Some(POLICY.backoff.initial), usage).await;
                return "doomed";
            }
            match session.publish(vec![event]).await {
                Ok(Published::Done) => {}
                Ok(Published::UnknownTopic(_)) if needed => {
                    session.rollback().await;
                    let outcome = Outcome::Refused(format!("nobody subscribes to the topic \"{topic}\""));
                    self.settler.record(claim, outcome.as_str(), outcome.reason(), None, usage).await;
                    return outcome.as_str();
                }
                Ok(Published::UnknownTopic(_)) => tracing::warn!(topic, "nobody subscribes to this topic any more"),
                Err(error) => tracing::warn!(?error, topic, "an event was not published"),
            }
        }
        session.leave(answer, usage.clone());
        self.settler.commit(claim, session, &POLICY, usage).await
    }
}

/// Why a way is closed, if nothing of a load went through it.
fn trouble(carried: &[Carried]) -> Option<String> {
    let closed = carried.iter().all(|one| one.closed);
    carried.first().filter(|_| closed).map(|one| one.outcome.reason())
}

fn lane(function: &str, limit: u32) -> Lane {
    Lane {
        function: function.to_owned(),
        version: crate::deferred::VERSION,
        contract: POLICY.contract,
        max_attempts: POLICY.max_attempts,
        lease: LEASE,
        limit,
        concurrency: None,
        rate: None,
    }
}
