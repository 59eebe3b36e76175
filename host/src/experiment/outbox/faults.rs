//! What goes wrong in a run, and that it did: each fault hits while events are on their way.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use rand::seq::SliceRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::super::armed::{armed, last_fired};
use super::super::host::HostProcess;
use super::broker::{Broker, Kind};
use super::{Line, Notify, Options};
use crate::crash::Point;

/// Milliseconds from a fault's share of the messages to the fault.
const PAUSES: std::ops::Range<u64> = 50..500;
/// A broker that is down, or stands still, for so long.
const AWAY: Duration = Duration::from_secs(3);
/// A host that has not sent anything after so long never will.
const SENT_WITHIN: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(5);

/// One fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// A host that relays, and is started again.
    Relay,
    /// The same, when RabbitMQ has confirmed events and nobody has written that down.
    Confirmed,
    /// The host that receives from the broker of this place, and is started again.
    Receiver(usize),
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
    /// Of these, between a confirmation and its record.
    pub(super) confirmed: u64,
    pub(super) receiver_kills: u64,
    pub(super) freezes: u64,
    /// In order, for people.
    pub(super) list: Vec<String>,
}

pub(super) struct Faults {
    random: ChaCha8Rng,
    list: Vec<Fault>,
    /// Where a host writes that it met its fault.
    folder: PathBuf,
    messages: usize,
    /// So many messages may be sent: each fault has its share, so that it hits some of them.
    released: Arc<Semaphore>,
}

impl Faults {
    /// Of a run that leaves what it has to say in that folder.
    pub(super) fn new(options: &Options, folder: &Path, released: Arc<Semaphore>) -> Self {
        let mut random = ChaCha8Rng::seed_from_u64(options.seed);
        let kill = |number: u64| if number.is_multiple_of(2) { Fault::Confirmed } else { Fault::Relay };
        let mut list: Vec<_> = (0..options.kills).map(kill).collect();
        for place in 0..2 {
            list.extend((0..options.broker_kills).flat_map(|_| [Fault::Broker(place), Fault::Receiver(place)]));
            list.push(Fault::Freeze(place));
        }
        list.shuffle(&mut random);
        let messages = usize::try_from(options.messages).unwrap_or(usize::MAX);
        Self { random, list, folder: folder.to_owned(), messages, released }
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
            if fault != Fault::Confirmed {
                self.released.add_permits(share);
            }
            sleep(Duration::from_millis(self.random.random_range(PAUSES))).await;
            notify(&format!("fault {} of {}: {fault:?}", number + 1, self.list.len()));
            let said = match fault {
                Fault::Relay => {
                    let (chosen, relay) = self.choose(relays)?;
                    let open = relay.client().open().await.unwrap_or_default();
                    relay.kill().await?;
                    done.relay_kills += 1;
                    done.hits += u64::from(open > 0);
                    relay.restart().await?;
                    format!("host {chosen} that relays killed, {open} messages open")
                }
                Fault::Confirmed => {
                    let released = Arc::clone(&self.released);
                    let fired = self.folder.join(format!("fired-{number}"));
                    let (chosen, relay) = self.choose(relays)?;
                    kill_confirmed(relay, lines, &fired, || released.add_permits(share)).await?;
                    done.relay_kills += 1;
                    done.hits += 1;
                    done.confirmed += 1;
                    format!("host {chosen} that relays killed between a confirmation and its record")
                }
                Fault::Broker(place) => {
                    let broker = &mut lines.get_mut(place).context("there is no such broker")?.broker;
                    broker.kill()?;
                    sleep(AWAY).await;
                    broker.restart().await?;
                    format!("{} killed", broker.kind.name())
                }
                Fault::Receiver(place) => {
                    let line = lines.get_mut(place).context("there is no such broker")?;
                    line.receiver.kill().await?;
                    done.receiver_kills += 1;
                    line.receiver.restart().await?;
                    format!("host that receives from {} killed", line.broker.kind.name())
                }
                Fault::Freeze(place) => {
                    let broker = &lines.get(place).context("there is no such broker")?.broker;
                    broker.freeze()?;
                    sleep(AWAY).await;
                    broker.thaw()?;
                    done.freezes += 1;
                    format!("{} stood still", broker.kind.name())
                }
            };
            done.list.push(said);
        }
        self.released.add_permits(self.messages - share * self.list.len());
        while let Some(sender) = senders.join_next().await {
            sender.context("a sender broke off")??;
        }
        Ok(done)
    }

    fn choose<'a>(&mut self, relays: &'a mut [HostProcess]) -> anyhow::Result<(usize, &'a mut HostProcess)> {
        let chosen = self.random.random_range(0..relays.len());
        Ok((chosen, relays.get_mut(chosen).context("there is no relay")?))
    }
}

/// Other brokers stand still meanwhile, so that the confirmation is one of RabbitMQ's, which forgets nothing that it was given
/// twice.
async fn kill_confirmed(
    relay: &mut HostProcess,
    lines: &[Line],
    fired: &Path,
    release: impl FnOnce(),
) -> anyhow::Result<()> {
    relay.stop().await?;
    relay.set_variables(armed(Point::RelaySent, "kill", fired));
    let others = || lines.iter().map(|line| &line.broker).filter(|broker| broker.kind != Kind::RabbitMq);
    others().try_for_each(Broker::freeze)?;
    let _ = relay.restart().await; // It may die before it is ready.
    release();
    let began = Instant::now();
    while relay.check_alive().is_ok() {
        if began.elapsed() > SENT_WITHIN {
            bail!("a host that relays has sent nothing to RabbitMQ within {SENT_WITHIN:?}");
        }
        sleep(POLL).await;
    }
    others().try_for_each(Broker::thaw)?;
    if last_fired(fired).is_none() {
        bail!("a host that relays ended before it had sent anything: see {}", relay.log().display());
    }
    relay.set_variables(Vec::new());
    relay.restart().await?;
    Ok(())
}
