//! Messages that share a commit: run in one transaction, acknowledged and committed together.
//!
//! Optimistic: there is no savepoint per message. If one of them ends otherwise than well, nothing of them is left, and the
//! others share another one without it; if that does not help, or if the commit ends otherwise, each runs alone. All that is
//! under the claims that they have: what was for nothing counts as nothing. Their instances are made side by side; the
//! transaction is at the service of one after the other, in the order of the messages.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::{StreamExt as _, stream};
use tokio::sync::{MutexGuard, oneshot};

use super::streams::Batched;
use super::turn::{Held, Returned, Turn};
use super::{SLOTS, Worker};
use crate::engine::Run;
use crate::engine::catalog::Function;
use crate::engine::label::Class;
use crate::engine::memory::Share;
use crate::manifest::Batching;
use crate::message::{Answer, Claim, Claimed, Contract, Outcome, Usage};
use crate::pace::ENOUGH;
use crate::running::Place;
use crate::store::{Known, Session};

/// Instances of one batch at once: so many that no core waits for one to be made while another works.
const SIDE_BY_SIDE: usize = 4;

/// How many messages of a batch are told apart as those that keep it from its commit, before each of it runs alone.
const CULPRITS: usize = 2;

/// A message that was claimed, and its place among those that run.
type One = Arc<(Claimed, Place)>;

/// What came of a commit that was to be shared.
enum Shared {
    /// So many of the messages have settled, from the first on.
    Settled(usize),
    /// Nothing is left of what was tried: because of this one, if that is known.
    Nothing(Option<usize>),
}

/// What one of them did.
struct Did {
    answer: Option<Answer>,
    /// What those are told who wait for it.
    wanted: Option<Answer>,
    usage: Usage,
    took: Duration,
    /// Of the transaction.
    calls: u32,
}

/// Once it is acknowledged: what it used, how long it took, and what those are told who wait for its answer.
type Done = (Usage, Duration, Option<Answer>);

/// How many messages of a function may share a commit: one, unless they leave nothing outside of it and may begin again.
pub(super) fn most(function: &Function) -> u32 {
    let manifest = function.manifest();
    let may = manifest.contract == Contract::FinishOnce && function.class() != Class::External;
    if may && manifest.flow.batch != Some(Batching::Off) { function.pace.together() } else { 1 }
}

impl Worker {
    /// Messages of one function version from their claims to their settlement: in one commit if that can be, or else one by one.
    pub(super) async fn handle_all(
        self: &Arc<Self>,
        function: &Arc<Function>,
        batch: Vec<(Claimed, Place)>,
        batched: Batched,
    ) {
        let (mut batch, mut alone): (Vec<One>, Vec<One>) = (batch.into_iter().map(Arc::new).collect(), Vec::new());
        let _under_way = batched.begin().await;
        let mut turn = batched.run().await;
        self.free.notify_one();
        loop {
            match self.share(function, &batch, turn).await {
                Shared::Nothing(Some(culprit)) if alone.len() < CULPRITS && culprit < batch.len() => {
                    alone.push(batch.remove(culprit));
                }
                Shared::Nothing(_) => {
                    function.pace.fell_apart(u32::try_from(batch.len()).unwrap_or(u32::MAX));
                    break;
                }
                Shared::Settled(count) => {
                    batch.drain(..count);
                    break;
                }
            }
            turn = batched.run_again().await;
        }
        alone.extend(batch);
        if alone.is_empty() {
            return;
        }
        let _turn = batched.run_again().await; // Another batch would meet them at their rows.
        let alone = stream::iter(alone).for_each_concurrent(SLOTS, |one| async move {
            let (claimed, place) = &*one;
            self.handle(function, claimed.clone(), place).await;
        });
        alone.await;
    }

    /// Runs messages and commits once.
    async fn share(self: &Arc<Self>, function: &Arc<Function>, batch: &[One], turn: MutexGuard<'_, ()>) -> Shared {
        if batch.len() < 2 {
            return Shared::Settled(0);
        }
        let label = function.class().to_string();
        let watched = batch.iter().map(|one| self.watch.attempt(&one.0.claim, &one.0.message, label.clone()));
        let watched: Vec<_> = watched.collect();
        let (worker, its, run_batch) = (Arc::clone(self), Arc::clone(function), batch.to_vec());
        let run = self.engine.spawn(async move { worker.run_all(&its, &run_batch).await });
        let (session, ran) = match run.await {
            Ok(Ok(ran)) => ran,
            Ok(Err(culprit)) => return Shared::Nothing(culprit),
            Err(_) => return Shared::Nothing(None),
        };
        let claims: Vec<&Claim> = batch[..ran.len()].iter().map(|one| &one.0.claim).collect();
        drop(turn);
        let known = self.settler.commit_all(&claims, session).await;
        if known != Known::Committed {
            return Shared::Nothing(None);
        }
        if ran.iter().any(|(usage, ..)| usage.published > 0) {
            self.bell.ring();
        }
        let count = ran.len();
        for ((one, mut watched), (usage, took, wanted)) in batch.iter().zip(watched).zip(ran) {
            watched.ran(took);
            watched.ended("completed", "", usage.fuel);
            self.settled.notify(&one.0.message.id, wanted);
        }
        Shared::Settled(count)
    }

    /// In one transaction, for as long as all goes well: what each used, and how long it took. Or which was the first that did
    /// not end well. What is under way when something goes wrong is waited for.
    async fn run_all(
        self: &Arc<Self>,
        function: &Arc<Function>,
        batch: &[One],
    ) -> Result<(Box<dyn Session>, Vec<Done>), Option<usize>> {
        let began = Instant::now();
        let (first, mut before) = oneshot::channel();
        let mut session = self.store.session();
        session.share(&batch.iter().map(|one| &one.0.claim).collect::<Vec<_>>());
        let _ = first.send(session); // It is received below.
        let expected = function.pace.calls();
        let mut did = Vec::with_capacity(batch.len());
        let (mut under_way, mut begun, mut culprit) = (VecDeque::new(), 0, None);
        loop {
            while culprit.is_none()
                && began.elapsed() < ENOUGH
                && under_way.len() < SIDE_BY_SIDE
                && let Some(one) = batch.get(begun)
                && let Some(share) = self.room(one, begun == 0).await
            {
                begun += 1;
                let (next, after) = oneshot::channel();
                let before = Held::Before(std::mem::replace(&mut before, after));
                let (worker, function, one) = (Arc::clone(self), Arc::clone(function), Arc::clone(one));
                // A panic in there ends this run, and dropping the session rolls it back.
                under_way.push_back(self.engine.spawn(async move {
                    let (claimed, place) = &*one;
                    let (lent, back) = Turn::lend(&claimed.claim, before, next, expected);
                    worker.run_one(&function, claimed, place, share, (lent, back)).await
                }));
            }
            let Some(run) = under_way.pop_front() else { break };
            match run.await {
                Ok(Some(one)) if culprit.is_none() => did.push(one),
                _ => culprit = culprit.or(Some(did.len())),
            }
        }
        let session = before.await;
        if culprit.is_some() {
            if let Ok(session) = session {
                session.rollback().await; // Before the others try again.
            }
            return Err(culprit);
        }
        let mut session = session.map_err(|_| None)?;
        let each = began.elapsed() / u32::try_from(did.len()).unwrap_or(u32::MAX).max(1);
        let mut ran = Vec::with_capacity(did.len());
        for (one, Did { answer, wanted, usage, took, calls }) in batch.iter().zip(did) {
            function.pace.ran_together(each, usage.fuel);
            function.pace.took(calls);
            session.enter(&one.0.claim);
            session.leave(answer, usage.clone());
            ran.push((usage, took, wanted));
        }
        Ok((session, ran))
    }

    /// The memory for one of them. Only the first waits for it: after that the batch may hold the database, and those who have
    /// memory wait for that.
    async fn room(&self, one: &One, first: bool) -> Option<Share> {
        let message = &one.0.message;
        if first { Some(self.engine.enter(message).await) } else { self.engine.enter_now(message) }
    }

    /// One of them, which hands the session on. None if it did not complete; then nothing of the transaction can be committed.
    async fn run_one(
        &self,
        function: &Function,
        Claimed { claim, message }: &Claimed,
        place: &Place,
        share: Share,
        (session, back): (Box<dyn Session>, oneshot::Receiver<Returned>),
    ) -> Option<Did> {
        let start = Instant::now();
        let handler = &function.compiled.get()?.handler;
        let (settings, stop, outside) = (&function.settings, Arc::clone(&place.stop), Some(&self.outside));
        let run = Run { settings, handler, message, claim, stop, session, outside, shares: true };
        let ran = self.engine.invoke_within(run, share, place.now()).await;
        drop(ran.session);
        let Returned { held, next, calls, too_many } = back.await.ok()?;
        if too_many {
            function.pace.took(calls); // Else the others would be expected to do the same as before.
        }
        let completed = match ran.outcome {
            Outcome::Completed(answer) => Some(Did {
                wanted: self.settled.wanted(&message.id, answer.as_ref()),
                answer,
                usage: ran.usage,
                took: start.elapsed(),
                calls,
            }),
            _ => None,
        };
        if let Some(next) = next {
            let session = held.take(claim).await?;
            if completed.is_none() {
                session.rollback().await; // Before they run alone.
                return None;
            }
            next.send(session).ok()?;
        }
        completed
    }
}
