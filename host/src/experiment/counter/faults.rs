//! The faults, one after another while there is work: SIGKILL to a host, SIGKILL to the database, a zombie, a lost answer.
//!
//! Which is next and the time between two are random, from the seed. The time adapts in both directions: shorter when the
//! work would be over before enough faults hit it, longer after a span in which nothing was completed, since a host that
//! is always killed before its first message shows nothing either. For each fault that is still missing some of the requests
//! are kept back, so that there is work for it also when all else was done while a host was on its way up. Whether a fault
//! hit is read from the database.

use std::time::Duration;

use anyhow::Context as _;
use rand::RngExt as _;
use rand_chacha::ChaCha8Rng;
use tokio::time::{Instant, sleep, sleep_until};

use super::super::proxy::{Fault, Of};
use super::super::server::Server;
use super::hosts::Hosts;
use super::progress::Progress;
use super::zombie::{self, Zombie};
use super::{Faults, LEASE};

/// Milliseconds from one fault to the next.
const LIFE: std::ops::Range<u64> = 150..450;
const LONGEST_LIFE: Duration = Duration::from_secs(10);
/// Faults are planned as if twice as many were wanted: some will hit nothing.
const SPARE: u64 = 2;
/// Requests that are kept back for one fault, and for how many of them for each hit that is missing.
const PORTION: u64 = 8;
const PORTIONS: u64 = 4;
const POLL: Duration = Duration::from_millis(25);
/// How long a fault waits for something to hit.
const AT_WORK_WITHIN: Duration = Duration::from_millis(500);
const AT_WORK_POLL: Duration = Duration::from_millis(2);
/// Waiting longer for an answer would hold up the fault.
const LOOK_WITHIN: Duration = Duration::from_millis(200);
const READY_WITHIN: Duration = Duration::from_secs(60);
/// What is done to lost commits, in turn.
const LOSSES: [Fault; 5] = [Fault::Before, Fault::After, Fault::BlackHole, Fault::After, Fault::Before];

/// One host that was killed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Kill {
    /// Seconds since the first request.
    pub(super) at: f64,
    /// Which one, from 1.
    pub(super) host: usize,
    /// How long nothing else had gone wrong.
    pub(super) lived: Duration,
    /// Its rows in state `running` right after it. None: it hit nothing.
    pub(super) running: u64,
    /// How long the next host took to be ready.
    pub(super) ready_after: Duration,
}

/// The database that was killed, once.
#[derive(Debug, Clone, Copy)]
pub(super) struct Outage {
    /// Seconds since the first request.
    pub(super) at: f64,
    /// Rows in state `running` just before it. None: it hit nothing.
    pub(super) running: u64,
    /// How long it took to take connections again.
    pub(super) up_after: Duration,
    /// How long until all hosts were ready.
    pub(super) ready_after: Duration,
}

/// What was done.
#[derive(Debug, Default)]
pub(super) struct Done {
    pub(super) kills: Vec<Kill>,
    pub(super) outages: Vec<Outage>,
    pub(super) zombies: Vec<Zombie>,
    /// Seconds since the first request, of each order to lose the answer of the next commit.
    pub(super) losses: Vec<f64>,
}

impl Done {
    /// Faults that hit work. How many commits have lost their answers is the network's to say.
    pub(super) fn hits(&self, lost_commits: u64) -> Faults {
        let count = |hits: &mut dyn Iterator<Item = bool>| hits.filter(|hit| *hit).count() as u64;
        Faults {
            kills: count(&mut self.kills.iter().map(|kill| kill.running > 0)),
            database_kills: count(&mut self.outages.iter().map(|outage| outage.running > 0)),
            zombies: count(&mut self.zombies.iter().map(|zombie| !zombie.taken.is_empty())),
            lost_commits,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Kill,
    Outage,
    Zombie,
    Loss,
}

/// Does harm to hosts until every fault has hit often enough, or nothing is left to do.
pub(super) struct Trouble<'a> {
    pub(super) hosts: &'a mut Hosts,
    pub(super) server: Option<Server>,
    pub(super) progress: &'a Progress,
    pub(super) random: ChaCha8Rng,
    pub(super) wanted: Faults,
    pub(super) done: Done,
}

/// When the next fault comes: after some time, or after some work.
#[derive(Debug, PartialEq, Eq)]
struct Pace {
    longest: Duration,
    /// Messages to complete.
    quota: u64,
}

impl<'a> Trouble<'a> {
    /// Returns the hosts as well, which settle what is left.
    pub(super) async fn run(mut self) -> anyhow::Result<(&'a mut Hosts, Done)> {
        let mut idle_lives = 0;
        loop {
            let began = Instant::now();
            self.look().await?;
            let completed = self.progress.counts().completed;
            let planned = Duration::from_millis(self.random.random_range(LIFE));
            let still = missing(self.wanted, self.hits());
            let pace = pace(planned, idle_lives, self.progress.left(), sum(&still));
            if !self.live(began, completed, &pace).await? {
                return Ok((self.hosts, self.done));
            }
            let idle = self.progress.counts().completed == completed && !self.progress.is_starved();
            idle_lives = if idle { idle_lives + 1 } else { 0 };
            let still = missing(self.wanted, self.hits());
            let kind = choose(&mut self.random, &still);
            let victim = self.victim().await?;
            match kind {
                Kind::Kill => self.kill(began, victim).await?,
                Kind::Outage => self.break_down().await?,
                Kind::Zombie => self.freeze(victim).await?,
                Kind::Loss => self.lose(victim)?,
            }
            self.progress.note_faults(self.done.kills.len() as u64, self.hits());
        }
    }

    fn hits(&self) -> Faults {
        self.done.hits(self.hosts.lost_commits().all())
    }

    async fn look(&mut self) -> anyhow::Result<()> {
        // Any of them knows it all.
        let some = self.random.random_range(0..self.hosts.count());
        let client = self.hosts.member(some)?.process.client().clone();
        self.progress.look(&client, LOOK_WITHIN).await;
        Ok(())
    }

    /// Lets the hosts work until it is time. False if nothing need go wrong any more.
    async fn live(&mut self, began: Instant, completed: u64, pace: &Pace) -> anyhow::Result<bool> {
        let end = began + pace.longest;
        loop {
            let missing = sum(&missing(self.wanted, self.hits()));
            self.progress.keep_back(missing * PORTIONS * PORTION);
            let enough = missing == 0;
            if self.progress.is_settled() || (enough && self.progress.all_accepted()) {
                return Ok(false);
            }
            let worked = self.progress.counts().completed.saturating_sub(completed);
            if worked >= pace.quota || self.progress.is_starved() || Instant::now() >= end {
                return Ok(true);
            }
            sleep_until(end.min(Instant::now() + POLL)).await;
            self.hosts.check_alive()?;
            self.look().await?;
        }
    }

    /// One of the hosts that are at work, or any if none is soon.
    async fn victim(&mut self) -> anyhow::Result<usize> {
        self.progress.release(PORTION);
        let end = Instant::now() + AT_WORK_WITHIN;
        let mut busy = self.hosts.busy().await?;
        while busy.is_empty() && Instant::now() < end {
            sleep(AT_WORK_POLL).await;
            busy = self.hosts.busy().await?;
        }
        let some = if busy.is_empty() { (0..self.hosts.count()).collect() } else { busy };
        Ok(some[self.random.random_range(0..some.len())])
    }

    async fn kill(&mut self, began: Instant, number: usize) -> anyhow::Result<()> {
        let (at, lived) = (self.progress.seconds(), began.elapsed());
        let id = self.hosts.member(number)?.process.id();
        self.hosts.member(number)?.process.kill().await?;
        // Before another host sets things right: on a file the next one, else one that has waited for the lease.
        let running = self.hosts.held_by(id.as_deref()).await?.len() as u64;
        let ready_after = self.hosts.member(number)?.process.restart().await?;
        self.done.kills.push(Kill { at, host: number + 1, lived, running, ready_after });
        Ok(())
    }

    async fn break_down(&mut self) -> anyhow::Result<()> {
        let (at, running) = (self.progress.seconds(), self.hosts.held().await?.len() as u64);
        let server = self.server.as_mut().context("there is no database's server to kill")?;
        server.kill().await?;
        let began = Instant::now();
        server.start().await?;
        let up_after = began.elapsed();
        self.hosts.until_ready(READY_WITHIN).await?;
        self.hosts.check_alive()?;
        self.done.outages.push(Outage { at, running, up_after, ready_after: began.elapsed() });
        Ok(())
    }

    async fn freeze(&mut self, number: usize) -> anyhow::Result<()> {
        let acknowledged = self.done.zombies.len().is_multiple_of(2);
        let frozen = zombie::freeze(self.hosts, number, self.progress.seconds(), LEASE, acknowledged);
        self.done.zombies.push(frozen.await?);
        Ok(())
    }

    /// Of whichever commit comes next on a host.
    fn lose(&mut self, number: usize) -> anyhow::Result<()> {
        let fault = LOSSES[self.done.losses.len() % LOSSES.len()];
        let proxy = self.hosts.member(number)?.proxy.as_ref().context("there is no network to break")?;
        proxy.next(Of::Acknowledgement, fault, 1);
        self.done.losses.push(self.progress.seconds());
        Ok(())
    }
}

/// Kinds that have not hit often enough, and how often they still must.
fn missing(wanted: Faults, hits: Faults) -> Vec<(Kind, u64)> {
    let all = [
        (Kind::Kill, wanted.kills, hits.kills),
        (Kind::Outage, wanted.database_kills, hits.database_kills),
        (Kind::Zombie, wanted.zombies, hits.zombies),
        (Kind::Loss, wanted.lost_commits, hits.lost_commits),
    ];
    let missing = all.into_iter().map(|(kind, wanted, hits)| (kind, wanted.saturating_sub(hits)));
    missing.filter(|(_, count)| *count > 0).collect()
}

fn sum(missing: &[(Kind, u64)]) -> u64 {
    missing.iter().map(|(_, count)| count).sum()
}

/// One of them, the rarer the fewer are missing. Once nothing is, hosts are killed on, while there are requests to send.
fn choose(random: &mut ChaCha8Rng, missing: &[(Kind, u64)]) -> Kind {
    let mut place = random.random_range(0..sum(missing).max(1));
    for (kind, count) in missing {
        match place.checked_sub(*count) {
            Some(rest) => place = rest,
            None => return *kind,
        }
    }
    Kind::Kill
}

/// `left` messages have to last for `missing` more hits.
fn pace(planned: Duration, idle_lives: u32, left: u64, missing: u64) -> Pace {
    let longest = planned.saturating_mul(1 << idle_lives.min(8)).min(LONGEST_LIFE);
    let quota = left.checked_div(missing * SPARE).map_or(u64::MAX, |quota| quota.max(1));
    Pace { longest, quota }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;

    use super::*;

    const PLANNED: Duration = Duration::from_millis(300);

    #[test]
    fn work_is_rationed_over_the_faults_that_are_missing() {
        assert_eq!(pace(PLANNED, 0, 10_000, 20).quota, 250);
        assert_eq!(pace(PLANNED, 0, 3, 20).quota, 1);
        assert_eq!(pace(PLANNED, 0, 10_000, 0).quota, u64::MAX);
    }

    #[test]
    fn a_host_that_completes_nothing_lives_longer() {
        assert_eq!(pace(PLANNED, 0, 10, 1).longest, PLANNED);
        assert_eq!(pace(PLANNED, 2, 10, 1).longest, PLANNED * 4);
        assert_eq!(pace(PLANNED, 40, 10, 1).longest, LONGEST_LIFE);
    }

    #[test]
    fn every_kind_that_is_missing_comes_and_no_other() {
        let wanted = Faults { kills: 3, database_kills: 1, zombies: 1, lost_commits: 0 };
        let hits = Faults { kills: 1, database_kills: 1, zombies: 0, lost_commits: 0 };
        assert_eq!(missing(wanted, hits), [(Kind::Kill, 2), (Kind::Zombie, 1)]);
        let mut random = ChaCha8Rng::seed_from_u64(1);
        let mut kills = 0;
        for _ in 0..3000 {
            match choose(&mut random, &missing(wanted, hits)) {
                Kind::Kill => kills += 1,
                kind => assert_eq!(kind, Kind::Zombie),
            }
        }
        assert!((1900..2100).contains(&kills), "{kills}");
    }
}
