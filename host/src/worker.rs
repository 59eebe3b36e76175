//! The spine: claim → (begin) → invoke → settle, for as long as the host runs.
//!
//! Before it: messages wait in [`crate::store`]. It decides nothing: [`crate::engine`] says how a run ended,
//! [`crate::settle`] what that means, and the store keeps it. A suspect (its last claim ended without a record) runs
//! with nothing else in flight, so that a message which kills its host takes no neighbour's attempt with it.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

use crate::bell::Bell;
use crate::calls::LedgerClient;
use crate::clock::Timestamp;
use crate::crash::{self, Point};
use crate::engine::catalog::{Catalog, Function};
use crate::engine::{Engine, Ran, Run};
use crate::message::{Claim, Claimed, Contract, Message, Outcome, Usage};
use crate::running::{Place, Running, Stop};
use crate::settle::{Settlement, settle};
use crate::settled::Settled;
use crate::settlement::Settler;
use crate::store::{self, ClaimRequest, Lane, Store};
use crate::watch::Watch;

mod streams;
mod together;
mod turn;

use streams::Streams;

/// How many messages run at once.
const SLOTS: usize = 16;
/// Longest time between two looks at the queue, and between two heartbeats.
const POLL: Duration = Duration::from_millis(200);
const PULSE: Duration = Duration::from_secs(1);

/// Everything a run needs, shared by all of them.
pub(crate) struct Worker {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) engine: Arc<Engine>,
    pub(crate) catalog: Arc<Catalog>,
    /// Who calls other servers for functions.
    outside: Arc<LedgerClient>,
    pub(crate) settled: Arc<Settled>,
    pub(crate) watch: Arc<Watch>,
    /// A fresh random id: nothing is owned by a host's name.
    pub(crate) host: String,
    running: Arc<Running>,
    settler: Settler,
    /// Says that a commit may have left something for [`crate::relay`].
    bell: Arc<Bell>,
    suspects: AtomicBool,
    streams: Streams,
    /// There may be room for another batch.
    free: Notify,
    /// Whether leases are renewed. Always, but in an experiment that asks what it is good for.
    renews: bool,
}

impl Worker {
    pub(crate) fn new(
        settler: Settler,
        engine: Arc<Engine>,
        catalog: Arc<Catalog>,
        outside: Arc<LedgerClient>,
        settled: Arc<Settled>,
        running: Arc<Running>,
        bell: Arc<Bell>,
    ) -> Arc<Self> {
        let host = hex::encode(rand::random::<[u8; 8]>());
        let (store, watch) = (Arc::clone(&settler.store), Arc::clone(&settler.watch));
        let renews = std::env::var_os("SEMEL_EXPERIMENT_NO_HEARTBEAT").is_none_or(|value| value != "1");
        let suspects = AtomicBool::new(true);
        Arc::new(Self {
            store,
            engine,
            catalog,
            outside,
            settled,
            watch,
            host,
            running,
            settler,
            bell,
            suspects,
            streams: Streams::default(),
            free: Notify::new(),
            renews,
        })
    }

    /// Works until `stop` says so, then lets what runs end.
    pub(crate) async fn run(self: Arc<Self>, mut stop: watch::Receiver<bool>) {
        tracing::info!(host = self.host, "claims messages under this id");
        if !self.renews {
            tracing::warn!(
                "SEMEL_EXPERIMENT_NO_HEARTBEAT: no lease is renewed here. For experiments, and for nothing else"
            );
        }
        let pulse = tokio::spawn(Arc::clone(&self).pulse());
        let mut running = JoinSet::new();
        while !*stop.borrow() {
            while running.try_join_next().is_some() {}
            // Half of the slots free: claims come in batches, and each batch is one commit.
            if running.len() <= SLOTS / 2 && self.cycle(&mut running).await {
                continue;
            }
            tokio::select! {
                () = self.store.wait(POLL), if running.len() <= SLOTS / 2 => {}
                Some(_) = running.join_next() => {}
                () = self.free.notified() => {}
                _ = stop.changed() => {}
            }
        }
        while running.join_next().await.is_some() {}
        pulse.abort(); // Only between two statements' answers: the statements themselves run on the writer.
    }

    /// One round: claim what is due and start it. Whether there may be more of it.
    async fn cycle(self: &Arc<Self>, running: &mut JoinSet<()>) -> bool {
        let suspects = self.suspects.load(Ordering::SeqCst);
        if suspects && !running.is_empty() {
            return false; // A suspect waits until it is alone; nothing new starts before it.
        }
        let free = if suspects { 1 } else { SLOTS - running.len() };
        let functions = self.runnable();
        if functions.is_empty() {
            return false;
        }
        let free = u32::try_from(free).unwrap_or(1);
        // Decided once: what is claimed to run together is not let loose all at once if it is decided otherwise meanwhile.
        let most = |function: &Function| if suspects { 1 } else { together::most(function) };
        let most: HashMap<String, u32> =
            functions.iter().map(|(name, function)| (name.clone(), most(function))).collect();
        let lanes: Vec<Lane> = functions.iter().map(|(name, function)| self.lane(function, free, most[name])).collect();
        let limit = lanes.iter().map(|lane| lane.limit.saturating_sub(free)).sum::<u32>() + free;
        let limits: HashMap<String, u32> = lanes.iter().map(|lane| (lane.function.clone(), lane.limit)).collect();
        let request = ClaimRequest { lanes: shuffled(lanes), limit, suspects, host: self.host.clone() };
        let began = Instant::now();
        let claimed = match self.store.claim(request).await {
            Ok(claimed) => claimed,
            Err(error) => {
                tracing::error!(%error, "cannot claim");
                tokio::time::sleep(POLL).await;
                return false;
            }
        };
        if suspects && claimed.is_empty() {
            self.suspects.store(false, Ordering::SeqCst);
            return true; // Look again at once, for the others.
        }
        let mut counts: HashMap<&str, u32> = HashMap::new();
        for claimed in &claimed {
            *counts.entry(&claimed.claim.function).or_default() += 1;
        }
        // All that was due of each function was claimed, unless it is as much as was asked for.
        let is_full = |function: &str, count: u32| limits.get(function).is_none_or(|limit| *limit <= count);
        let more = u32::try_from(claimed.len()).unwrap_or(u32::MAX) >= limit
            || counts.into_iter().any(|(function, count)| is_full(function, count));
        if !claimed.is_empty() {
            crash::point(Point::ClaimCommitted);
            self.watch.metrics.claimed(began.elapsed());
        }
        self.start(claimed, &functions, &most, running);
        more
    }

    /// Begins to run what was claimed: what may share a commit in one task, everything else in one each. All of it is done on
    /// the guests' threads: what a run leaves is committed where it ran.
    fn start(
        self: &Arc<Self>,
        claimed: Vec<Claimed>,
        functions: &HashMap<String, Arc<Function>>,
        most: &HashMap<String, u32>,
        running: &mut JoinSet<()>,
    ) {
        let mut batches: HashMap<String, Vec<(Claimed, Place)>> = HashMap::new();
        for claimed in claimed {
            // The version it was claimed for, whatever is deployed in the meantime.
            let Some(function) = functions.get(&claimed.claim.function).cloned() else { continue };
            let place = self.running.enter(&claimed.claim);
            // What failed before would take its neighbours along.
            if claimed.claim.attempt == 1 && most[&claimed.claim.function] > 1 {
                batches.entry(claimed.claim.function.clone()).or_default().push((claimed, place));
                continue;
            }
            let worker = Arc::clone(self);
            let handled = async move { worker.handle(&function, claimed, &place).await };
            running.spawn_on(handled, self.engine.threads());
        }
        for (name, batch) in batches {
            let (Some(function), worker) = (functions.get(&name).cloned(), Arc::clone(self)) else { continue };
            let batched = self.streams.of(&name).claimed();
            let handled = async move { worker.handle_all(&function, batch, batched).await };
            running.spawn_on(handled, self.engine.threads());
        }
    }

    /// Functions that are compiled and not paused, by name.
    fn runnable(&self) -> HashMap<String, Arc<Function>> {
        let ready = |function: &Arc<Function>| function.compiled.get().is_some() && !function.is_paused();
        let ready = self.catalog.all().into_iter().filter(ready);
        ready.map(|function| (function.manifest().name.clone(), function)).collect()
    }

    /// How much of a function can be claimed now, within its own concurrency.
    fn lane(&self, function: &Function, free: u32, together: u32) -> Lane {
        let manifest = function.manifest();
        let (here, most) = (self.running.count(&manifest.name), manifest.concurrency());
        let limit = match together {
            1 => most.saturating_sub(here).min(free),
            _ if !self.streams.of(&manifest.name).has_room() => 0,
            together => together.min(most.saturating_sub(here)),
        };
        Lane {
            function: manifest.name.clone(),
            version: function.version,
            contract: manifest.contract,
            max_attempts: manifest.max_attempts(),
            lease: manifest.lease(),
            limit,
            concurrency: manifest.flow.concurrency.as_ref().map(|most| most.get_ref().get()),
            rate: manifest.flow.rate,
        }
    }

    /// Renews the leases of what runs here, and only then frees what nobody renewed.
    async fn pulse(self: Arc<Self>) {
        loop {
            let span = self.beat().await.unwrap_or_else(|error| {
                tracing::error!(%error, "cannot renew leases or recover");
                POLL
            });
            tokio::time::sleep(span).await;
        }
    }

    /// One beat. Returns the time to the next.
    async fn beat(&self) -> Result<Duration, store::Error> {
        // Before the claims are looked at: whoever waits for the writer in between cannot make a live claim look ended.
        let as_of = self.store.now().await?;
        let claims = self.running.all();
        let functions = self.runnable();
        // Also of what may be claimed before the next beat.
        let leases = claims.iter().map(|claim| claim.lease).chain(functions.values().map(|f| f.manifest().lease()));
        let next = leases.min().map_or(PULSE, |lease| lease / 3).min(PULSE);
        if !claims.is_empty() && self.renews {
            crash::point(Point::RenewDue);
            self.end_lost(&claims, &self.store.heartbeat(claims.clone()).await?);
        }
        let found = self.store.recover(as_of, functions.into_keys().collect()).await?;
        if found.freed + found.dead + found.in_doubt > 0 {
            tracing::warn!(found.freed, found.dead, found.in_doubt, "recovered lost claims");
            self.watch.metrics.recovered(found);
        }
        if found.suspects {
            self.suspects.store(true, Ordering::SeqCst);
        }
        Ok(next)
    }

    /// Runs whose claims no longer hold, or were settled meanwhile: they cannot commit any more, and need not go on. A
    /// statement is interrupted at the second beat only, when what was merely about to end has ended.
    fn end_lost(&self, claims: &[Claim], lost: &[(i64, i64)]) {
        for claim in claims.iter().filter(|claim| lost.contains(&(claim.seq, claim.fence))) {
            if self.running.lose(claim) {
                tracing::debug!(seq = claim.seq, "a claim that no longer holds is in a statement");
                self.store.interrupt(claim);
            }
        }
    }

    /// One message from its claim to its settlement.
    async fn handle(self: &Arc<Self>, function: &Arc<Function>, claimed: Claimed, place: &Place) {
        let Claimed { claim, message } = claimed;
        if claim.contract == Contract::BeginOnce {
            if !self.begin(&claim).await {
                return; // Not begun, so not started: recovery hands it out again.
            }
            crash::point(Point::BeginCommitted);
        }
        let id = message.id.clone();
        let mut watched = self.watch.attempt(&claim, &message, function.class().to_string());
        let began = Instant::now();
        let worker = Arc::clone(self);
        let (run_claim, run_function, stop) = (claim.clone(), Arc::clone(function), Arc::clone(&place.stop));
        let now = place.now();
        // A panic in there ends this run, and dropping the session rolls it back.
        let run = self.engine.spawn(async move { worker.invoke(&run_function, run_claim, message, stop, now).await });
        let (outcome, usage, session) = match run.await {
            Ok(Ok(Ran { outcome, usage, session, .. })) => (outcome, usage, Some(session)),
            Ok(Err(error)) => (Outcome::HostFailed(error), Usage::default(), None),
            Err(_) => {
                if !function.settings.calls.is_empty() {
                    self.outside.give_up(&id, claim.fence, "a defect of the host ended the run").await;
                }
                let why = "a defect of the host; its log says where";
                (Outcome::HostFailed(why.into()), Usage::default(), None)
            }
        };
        watched.ran(began.elapsed());
        function.pace.ran_alone(usage.fuel);
        let (fuel, mut end, reason, mut wanted) = (usage.fuel, outcome.as_str(), outcome.reason(), None);
        let policy = function.manifest().policy();
        match settle(&outcome, claim.attempts_counted(), &policy, rand::random()) {
            Settlement::Commit => {
                if let (Some(mut session), Outcome::Completed(answer)) = (session, outcome) {
                    wanted = self.settled.wanted(&id, answer.as_ref());
                    session.leave(answer, usage.clone());
                    let published = usage.published > 0;
                    end = self.settler.commit(&claim, session, &policy, usage).await;
                    if published {
                        self.bell.ring();
                    }
                }
            }
            settlement => {
                if let Some(session) = session {
                    session.rollback().await; // The write lock must be free before the failure is recorded.
                }
                crash::point(Point::RolledBack);
                let (kind, reason) = (outcome.as_str(), outcome.reason());
                self.settler.record(&claim, kind, reason, settlement.retry_after(), usage).await;
            }
        }
        watched.ended(end, &reason, fuel);
        self.settled.notify(&id, wanted.filter(|_| end == "completed"));
    }

    async fn begin(&self, claim: &Claim) -> bool {
        match self.store.begin(claim).await {
            Ok(begun) => begun,
            Err(error) => {
                tracing::error!(%error, function = claim.function, "cannot mark a message as begun; it does not start");
                false
            }
        }
    }

    async fn invoke(
        &self,
        function: &Function,
        claim: Claim,
        message: Message,
        stop: Arc<Stop>,
        started_at: Timestamp,
    ) -> Result<Ran, String> {
        let handler = &function.compiled.get().ok_or("the function is not compiled")?.handler;
        let mut session = self.store.session();
        session.enter(&claim);
        let (settings, outside) = (&function.settings, Some(&self.outside));
        let run = Run { settings, handler, message: &message, claim: &claim, stop, session, outside, shares: false };
        Ok(self.engine.invoke(run, started_at).await)
    }
}

/// Another function is first in each round, so that a busy one starves nobody.
fn shuffled(mut lanes: Vec<Lane>) -> Vec<Lane> {
    let turn = rand::random_range(0..lanes.len().max(1));
    lanes.rotate_left(turn);
    lanes
}
