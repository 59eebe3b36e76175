//! The messages: so many of each kind in a random order, one to `counter` after every twenty, until all are settled.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use rand::seq::SliceRandom as _;
use rand_chacha::ChaCha8Rng;
use tokio::task::JoinSet;
use tokio::time::sleep;
use uuid::Uuid;

use super::super::Notify;
use super::super::client::{Client, Counts, Message};
use super::super::host::HostProcess;
use super::super::report::grouped;
use super::kinds::{self, Kind};
use super::{COUNTER, MISBEHAVE, THIRSTY};

/// If nothing is settled for this long, it never will be.
const STUCK_AFTER: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A message to `counter` after so many that misbehave.
const GOOD_AFTER: usize = 20;

/// What is sent, and what became of it.
pub(super) struct Load {
    orders: Arc<Vec<Kind>>,
    /// The kinds of the messages that were accepted, by id.
    accepted: HashMap<String, Kind>,
}

/// How the runs of one kind ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) kind: Kind,
    /// Different messages that were accepted.
    pub(super) accepted: u64,
    /// Messages by the end they came to.
    pub(super) ends: BTreeMap<String, u64>,
}

impl Load {
    pub(super) fn new(of_each_kind: u64, random: &mut ChaCha8Rng) -> Self {
        let times = usize::try_from(of_each_kind).unwrap_or(usize::MAX);
        let mut orders: Vec<Kind> = kinds::ALL.iter().flat_map(|kind| std::iter::repeat_n(*kind, times)).collect();
        orders.shuffle(random);
        Self { orders: Arc::new(orders), accepted: HashMap::new() }
    }

    /// Sends everything, and returns when all is settled.
    pub(super) async fn run(
        &mut self,
        host: &mut HostProcess,
        clients: usize,
        notify: Notify<'_>,
    ) -> anyhow::Result<()> {
        let before = settled(host.client()).await?;
        self.send(host, clients).await?;
        let expected = before + (self.orders.len() + self.orders.len() / GOOD_AFTER) as u64;
        let mut moved = (before, Instant::now());
        loop {
            host.check_alive()?;
            let now = settled(host.client()).await?;
            notify(&format!("settled {} of {}", grouped(now), grouped(expected)));
            if now >= expected {
                return Ok(());
            }
            if now != moved.0 {
                moved = (now, Instant::now());
            }
            if moved.1.elapsed() > STUCK_AFTER {
                bail!("nothing was settled for {STUCK_AFTER:?}; the host's log is {}", host.log().display());
            }
            sleep(LOOK_EVERY).await;
        }
    }

    async fn send(&mut self, host: &HostProcess, clients: usize) -> anyhow::Result<()> {
        let next = Arc::new(AtomicUsize::new(0));
        // A client of its own: its connections end with it.
        let client = Client::new(&format!("http://{}", host.address()))?;
        let mut senders = JoinSet::new();
        for _ in 0..clients.max(1) {
            senders.spawn(send(client.clone(), Arc::clone(&self.orders), Arc::clone(&next)));
        }
        while let Some(sender) = senders.join_next().await {
            self.accepted.extend(sender.context("a sender broke off")??);
        }
        Ok(())
    }
}

async fn send(client: Client, orders: Arc<Vec<Kind>>, next: Arc<AtomicUsize>) -> anyhow::Result<Vec<(String, Kind)>> {
    let mut accepted = Vec::new();
    loop {
        let place = next.fetch_add(1, Relaxed);
        let Some(kind) = orders.get(place) else { return Ok(accepted) };
        let function = if kind.thirsty { THIRSTY } else { MISBEHAVE };
        let path = format!("/fn/{function}");
        let answer = client.send(&path, &Uuid::now_v7().to_string(), kind.body().as_bytes()).await?;
        accepted.push((answer.id, *kind));
        if place % GOOD_AFTER == GOOD_AFTER - 1 {
            client.send("/count/between", &Uuid::now_v7().to_string(), b"").await?;
        }
    }
}

async fn settled(client: &Client) -> anyhow::Result<u64> {
    let mut settled = 0;
    for function in [COUNTER, MISBEHAVE, THIRSTY] {
        settled += client.counts(function).await.map(|counts: Counts| counts.settled())?;
    }
    Ok(settled)
}

/// Joins what was sent with what the host says became of it.
pub(super) fn tally(loads: [&Load; 2], messages: &[Message]) -> Vec<Tally> {
    let ends: HashMap<&str, &str> = messages.iter().map(|message| (message.id.as_str(), end(message))).collect();
    let mut tallies: Vec<Tally> =
        kinds::ALL.iter().map(|kind| Tally { kind: *kind, accepted: 0, ends: BTreeMap::new() }).collect();
    for (id, kind) in loads.iter().flat_map(|load| &load.accepted) {
        let Some(tally) = tallies.iter_mut().find(|tally| tally.kind == *kind) else { continue };
        tally.accepted += 1;
        *tally.ends.entry(ends.get(id.as_str()).copied().unwrap_or("lost").to_owned()).or_default() += 1;
    }
    tallies
}

/// The outcome of a dead message, or else its state.
fn end(message: &Message) -> &str {
    let kind = message.last_error.as_ref().filter(|_| message.state == "dead").and_then(|error| error["kind"].as_str());
    kind.unwrap_or(&message.state)
}
