//! What goes wrong in a run, and that it did: each fault hits while events are on their way.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use rand::seq::SliceRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::super::host::HostProcess;
use super::{Line, Notify, Options};

/// Milliseconds from a fault's share of the messages to the fault.
const PAUSES: std::ops::Range<u64> = 50..500;
/// A broker that is down, or stands still, for so long.
const AWAY: Duration = Duration::from_secs(3);

/// One fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// A host that relays, and is started again.
    Relay,
    /// A broker, by its place, and it is started again after a while.
    Broker(usize),
    /// The same stands still for a while.
    Freeze(usize),
}

/// What was done.
#[derive(Debug, Default, Clone)]
pub(super) struct Done {
    pub(super) relay_kills: u64,
    /// Of these, with events under way.
    pub(super) hits: u64,
    pub(super) freezes: u64,
    /// In order, for people.
    pub(super) list: Vec<String>,
}

pub(super) struct Faults {
    random: ChaCha8Rng,
    list: Vec<Fault>,
    messages: usize,
    /// So many messages may be sent: each fault has its share, so that it hits some of them.
    released: Arc<Semaphore>,
}

impl Faults {
    pub(super) fn new(options: &Options, released: Arc<Semaphore>) -> Self {
        let mut random = ChaCha8Rng::seed_from_u64(options.seed);
        let mut list: Vec<_> = (0..options.kills).map(|_| Fault::Relay).collect();
        for place in 0..2 {
            list.extend((0..options.broker_kills).map(|_| Fault::Broker(place)));
            list.push(Fault::Freeze(place));
        }
        list.shuffle(&mut random);
        Self { random, list, messages: usize::try_from(options.messages).unwrap_or(usize::MAX), released }
    }

    /// Does all of them while the senders send, and what they sent is relayed. Returns when both have ended.
    pub(super) async fn run(
        &mut self,
        relays: &mut [HostProcess],
        lines: &mut [Line],
        mut senders: JoinSet<anyhow::Result<()>>,
        notify: Notify<'_>,
    ) -> anyhow::Result<Done> {
        let mut done = Done::default();
        let share = self.messages / (self.list.len() + 1);
        for (number, fault) in self.list.clone().into_iter().enumerate() {
            self.released.add_permits(share);
            sleep(Duration::from_millis(self.random.random_range(PAUSES))).await;
            notify(&format!("fault {} of {}: {fault:?}", number + 1, self.list.len()));
            match fault {
                Fault::Relay => {
                    let chosen = self.random.random_range(0..relays.len());
                    let relay = relays.get_mut(chosen).context("there is no relay")?;
                    let open = relay.client().open().await.unwrap_or_default();
                    relay.kill().await?;
                    done.relay_kills += 1;
                    done.hits += u64::from(open > 0);
                    relay.restart().await?;
                    done.list.push(format!("host {chosen} that relays killed, {open} messages open"));
                }
                Fault::Broker(place) => {
                    let broker = &mut lines.get_mut(place).context("there is no such broker")?.broker;
                    broker.kill()?;
                    sleep(AWAY).await;
                    broker.restart().await?;
                    done.list.push(format!("{} killed", broker.kind.name()));
                }
                Fault::Freeze(place) => {
                    let broker = &lines.get(place).context("there is no such broker")?.broker;
                    broker.freeze()?;
                    sleep(AWAY).await;
                    broker.thaw()?;
                    done.freezes += 1;
                    done.list.push(format!("{} stood still", broker.kind.name()));
                }
            }
        }
        self.released.add_permits(self.messages - share * self.list.len());
        while let Some(sender) = senders.join_next().await {
            sender.context("a sender broke off")??;
        }
        Ok(done)
    }
}
