//! Messages that share a commit: run in one transaction, acknowledged and committed together.
//!
//! Optimistic: there is no savepoint per message. If one of them ends otherwise than well, or the commit does, nothing of it is
//! left, and each runs alone under the claim that it has: what it did together was for nothing and counts as nothing. Their
//! instances are made side by side; the transaction is at the service of one after the other, in the order of the messages.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::{StreamExt as _, stream};
use tokio::sync::{MutexGuard, oneshot};

use super::streams::Batched;
use super::turn::{Held, Turn};
use super::{SLOTS, Worker};
use crate::engine::Run;
use crate::engine::catalog::Function;
use crate::engine::label::Class;
use crate::engine::memory::Share;
use crate::manifest::Batching;
use crate::message::{Claim, Claimed, Contract, Outcome, Usage};
use crate::pace::ENOUGH;
use crate::running::Place;
use crate::store::{Known, Session};

/// Instances of one batch at once: so many that no core waits for one to be made while another works.
const SIDE_BY_SIDE: usize = 4;

/// Messages that were claimed together, of one function version.
type Batch = Arc<Vec<(Claimed, Place)>>;

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
        let batch = Arc::new(batch);
        let turn = batched.run().await;
        self.free.notify_one();
        let done = self.share(function, &batch, &batched, turn).await;
        if done < batch.len() {
            let _turn = batched.run_again().await; // Another batch would meet them at their rows.
            let alone = stream::iter(&batch[done..]).for_each_concurrent(SLOTS, |(claimed, place)| async move {
                self.handle(function, claimed.clone(), place).await;
            });
            alone.await;
        }
    }

    /// Runs messages and commits once. Returns how many of them, from the first on, that settled. None: nothing is left of
    /// what was tried.
    async fn share(
        self: &Arc<Self>,
        function: &Arc<Function>,
        batch: &Batch,
        batched: &Batched,
        turn: MutexGuard<'_, ()>,
    ) -> usize {
        let count = u32::try_from(batch.len()).unwrap_or(u32::MAX);
        if count < 2 {
            return 0;
        }
        let label = function.class().to_string();
        let watched =
            batch.iter().map(|(Claimed { claim, message }, _)| self.watch.attempt(claim, message, label.clone()));
        let watched: Vec<_> = watched.collect();
        let (worker, its, run_batch) = (Arc::clone(self), Arc::clone(function), Arc::clone(batch));
        let run = self.engine.spawn(async move { worker.run_all(&its, &run_batch).await });
        let Ok(Some((session, ran))) = run.await else {
            function.pace.fell_apart(count);
            return 0;
        };
        let claims: Vec<&Claim> = batch[..ran.len()].iter().map(|(claimed, _)| &claimed.claim).collect();
        let before = batched.commit().await;
        drop(turn);
        let known = self.settler.commit_all(&claims, session).await;
        drop(before);
        if known != Known::Committed {
            function.pace.fell_apart(count);
            return 0;
        }
        if ran.iter().any(|(usage, _)| usage.published > 0) {
            self.sendable.notify_one();
        }
        for (((claimed, _), mut watched), (usage, took)) in batch.iter().zip(watched).zip(&ran) {
            watched.ran(*took);
            watched.ended("completed", "", usage.fuel);
            self.settled.notify(&claimed.message.id);
        }
        ran.len()
    }

    /// In one transaction, for as long as all goes well: what each used, and how long it took. What is under way when
    /// something goes wrong is waited for.
    async fn run_all(
        self: &Arc<Self>,
        function: &Arc<Function>,
        batch: &Batch,
    ) -> Option<(Box<dyn Session>, Vec<(Usage, Duration)>)> {
        let began = Instant::now();
        let (first, mut before) = oneshot::channel();
        let mut session = self.store.session();
        session.share(&batch.iter().map(|(claimed, _)| &claimed.claim).collect::<Vec<_>>());
        first.send(session).ok()?;
        let mut ran = Vec::with_capacity(batch.len());
        let (mut under_way, mut waiting, mut sound) = (VecDeque::new(), 0..batch.len(), true);
        loop {
            while sound
                && began.elapsed() < ENOUGH
                && under_way.len() < SIDE_BY_SIDE
                && let Some(place) = waiting.next()
            {
                let (pass, next) = oneshot::channel();
                let before = std::mem::replace(&mut before, next);
                // In this order: who waits for a turn holds its share of the memory, and so does whoever has the turn.
                let share = self.engine.enter(&batch[place].0.message).await;
                let (worker, function, batch) = (Arc::clone(self), Arc::clone(function), Arc::clone(batch));
                // A panic in there ends this run, and dropping the session rolls it back.
                under_way.push_back(self.engine.spawn(async move {
                    let (claimed, place) = &batch[place];
                    let start = Instant::now();
                    let (usage, session) = worker.run_one(&function, claimed, place, share, before).await?;
                    pass.send(session).ok()?;
                    Some((usage, start.elapsed()))
                }));
            }
            let Some(run) = under_way.pop_front() else { break };
            match run.await {
                Ok(Some(one)) if sound => ran.push(one),
                _ => sound = false,
            }
        }
        if !sound {
            return None;
        }
        let each = began.elapsed() / u32::try_from(ran.len()).unwrap_or(u32::MAX).max(1);
        ran.iter().for_each(|(usage, _)| function.pace.ran_together(each, usage.fuel));
        Some((before.await.ok()?, ran))
    }

    /// One of them. None, and nothing of the transaction is left, if it did not complete.
    async fn run_one(
        &self,
        function: &Function,
        Claimed { claim, message }: &Claimed,
        place: &Place,
        share: Share,
        before: oneshot::Receiver<Box<dyn Session>>,
    ) -> Option<(Usage, Box<dyn Session>)> {
        let handler = &function.compiled.get()?.handler;
        let (session, back) = Turn::lend(claim, Held::Before(before));
        let (settings, stop, outside) = (&function.settings, Arc::clone(&place.stop), Some(&self.outside));
        let run = Run { settings, handler, message, claim, stop, session, outside, shares: true };
        let ran = self.engine.invoke_within(run, share, place.now()).await;
        drop(ran.session);
        let mut session = back.await.ok()?.take(claim).await?;
        let Outcome::Completed(answer) = ran.outcome else {
            session.rollback().await; // Before they run alone.
            return None;
        };
        session.leave(answer, ran.usage.clone());
        Some((ran.usage, session))
    }
}
