//! The fault: SIGKILL to the host and a restart, again and again while there is work.
//!
//! The time between two kills is random, from the seed. It adapts in both directions: shorter when the work would be
//! over before enough kills hit it, longer after a life in which nothing was completed, since a host that is
//! always killed before its first message shows nothing either. Whether a kill hit is read from the database.

use std::time::Duration;

use rand::RngExt as _;
use rand_chacha::ChaCha8Rng;
use tokio::time::{Instant, sleep_until};

use super::super::host::HostProcess;
use super::progress::Progress;

/// Milliseconds from ready to killed.
const LIFE: std::ops::Range<u64> = 150..450;
const LONGEST_LIFE: Duration = Duration::from_secs(10);
/// Kills are planned as if twice as many were wanted: some will hit nothing.
const SPARE: u64 = 2;
const POLL: Duration = Duration::from_millis(25);
/// Waiting longer for an answer would hold up the kill.
const LOOK_WITHIN: Duration = Duration::from_millis(200);

/// One kill.
#[derive(Debug, Clone, Copy)]
pub(super) struct Kill {
    /// Seconds since the first request.
    pub(super) at: f64,
    /// How long the host had been ready.
    pub(super) lived: Duration,
    /// Rows in state `running` right after it. None: it hit nothing.
    pub(super) running: u64,
    /// How long the next host took to be ready.
    pub(super) ready_after: Duration,
}

/// Kills one host until it has been hit often enough, or nothing is left to do.
pub(super) struct Killer<'a> {
    host: &'a mut HostProcess,
    progress: &'a Progress,
    random: ChaCha8Rng,
    wanted: u64,
}

/// When a life ends: after some time, or after some work.
#[derive(Debug, PartialEq, Eq)]
struct Pace {
    longest: Duration,
    /// Messages to complete.
    quota: u64,
}

impl<'a> Killer<'a> {
    pub(super) fn new(host: &'a mut HostProcess, progress: &'a Progress, random: ChaCha8Rng, wanted: u64) -> Self {
        Self { host, progress, random, wanted }
    }

    pub(super) async fn run(mut self) -> anyhow::Result<Vec<Kill>> {
        let mut kills = Vec::new();
        let mut idle_lives = 0;
        loop {
            let began = Instant::now();
            self.progress.look(self.host.client(), LOOK_WITHIN).await;
            let completed = self.progress.counts().completed;
            let planned = Duration::from_millis(self.random.random_range(LIFE));
            let missing = self.wanted.saturating_sub(self.progress.hits());
            let pace = pace(planned, idle_lives, self.progress.left(), missing);
            if !self.live(began, completed, &pace).await? {
                return Ok(kills);
            }
            let idle = self.progress.counts().completed == completed;
            idle_lives = if idle { idle_lives + 1 } else { 0 };
            kills.push(self.kill(began).await?);
        }
    }

    /// Lets the host work until it is its time. False if it need not die any more.
    async fn live(&mut self, began: Instant, completed: u64, pace: &Pace) -> anyhow::Result<bool> {
        let end = began + pace.longest;
        loop {
            let enough = self.progress.hits() >= self.wanted;
            if self.progress.is_settled() || (enough && self.progress.all_accepted()) {
                return Ok(false);
            }
            let worked = self.progress.counts().completed.saturating_sub(completed);
            if worked >= pace.quota || Instant::now() >= end {
                return Ok(true);
            }
            sleep_until(end.min(Instant::now() + POLL)).await;
            self.host.check_alive()?;
            self.progress.look(self.host.client(), LOOK_WITHIN).await;
        }
    }

    async fn kill(&mut self, began: Instant) -> anyhow::Result<Kill> {
        let (at, lived) = (self.progress.seconds(), began.elapsed());
        self.host.kill().await?;
        // Before the next host opens the database and sets things right.
        let running = crate::store::running_after_crash(self.host.database()).await?;
        self.progress.note_kill(running > 0);
        let ready_after = self.host.restart().await?;
        Ok(Kill { at, lived, running, ready_after })
    }
}

/// `left` messages have to last for `missing` more hits.
fn pace(planned: Duration, idle_lives: u32, left: u64, missing: u64) -> Pace {
    let longest = planned.saturating_mul(1 << idle_lives.min(8)).min(LONGEST_LIFE);
    let quota = left.checked_div(missing * SPARE).map_or(u64::MAX, |quota| quota.max(1));
    Pace { longest, quota }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLANNED: Duration = Duration::from_millis(300);

    #[test]
    fn work_is_rationed_over_the_kills_that_are_missing() {
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
}
