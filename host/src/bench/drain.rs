//! A queue that waits, and the time until it is empty: all messages are there before the function is resumed.
//!
//! The clock is the effect itself: the sum of the counters, read from the database beside the host. It starts with the first
//! look that sees some work done, and what that look sees is not counted.

use std::time::{Duration, Instant};

use anyhow::{bail, ensure};
use tokio::task::yield_now;

use super::load::bodies;
use super::{Bench, COUNTER, ONE_BY_ONE, SINGLE, rate};

/// Messages that are put into the queue in one commit, for which the host waits.
pub(super) const CHUNK: usize = 20_000;
/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// A host that does nothing for so long has stopped.
const PATIENCE: Duration = Duration::from_secs(60);
/// Messages beside which a poison message is put.
const NEIGHBOURS: u32 = 10_000;
/// The counter refuses a name of more than 100 characters, and with it the message.
const POISON: usize = 101;

/// What a drain took.
pub(super) struct Drained {
    pub(super) per_second: f64,
    processor_us: f64,
    log_bytes: Option<f64>,
    written_bytes: f64,
    /// Attempts beyond one per message.
    again: u64,
}

impl Bench<'_> {
    /// Over 1,000 counters: with commits that are shared, then with none.
    pub(super) async fn drains(&mut self) -> anyhow::Result<()> {
        let picks = self.load.picks(self.options.messages);
        self.say("drain_batched");
        let drained = self.drain(COUNTER, &picks).await?;
        self.found("drain_batched", drained.per_second);
        self.found("cpu_us_per_message", drained.processor_us);
        match drained.log_bytes {
            Some(bytes) => self.found("wal_bytes_per_message", bytes),
            None => self.found("written_bytes_per_message", drained.written_bytes),
        }
        self.say("drain_single");
        let picks = self.load.picks(self.options.messages.min(ONE_BY_ONE));
        let drained = self.drain(SINGLE, &picks).await?;
        self.found("drain_single", drained.per_second);
        self.found("cpu_us_per_message_single", drained.processor_us);
        Ok(())
    }

    /// The same where all messages want the same row.
    pub(super) async fn hot(&mut self) -> anyhow::Result<()> {
        for (name, function, most) in [("hot_batched", COUNTER, u32::MAX), ("hot_single", SINGLE, ONE_BY_ONE)] {
            self.say(name);
            let picks = vec![0; self.options.messages.min(most) as usize];
            let drained = self.drain(function, &picks).await?;
            self.found(name, drained.per_second);
        }
        Ok(())
    }

    /// A pair: with one message in the middle that is refused, and without. Which comes first changes from round to round.
    pub(super) async fn poison(&mut self) -> anyhow::Result<()> {
        let count = self.options.messages.min(NEIGHBOURS);
        let poisoned_first = self.round.is_multiple_of(2);
        for poisoned in [poisoned_first, !poisoned_first] {
            let picks = self.load.picks(count);
            if poisoned {
                self.say("drain_poisoned");
                let drained = self.drain_with(COUNTER, &picks, true).await?;
                self.found("drain_poisoned", drained.per_second);
                self.found("poison_second_attempts", drained.again as f64);
            } else {
                self.say("drain_clean");
                let drained = self.drain(COUNTER, &picks).await?;
                self.found("drain_clean", drained.per_second);
            }
        }
        Ok(())
    }

    pub(super) async fn drain(&mut self, function: &str, picks: &[u32]) -> anyhow::Result<Drained> {
        self.drain_with(function, picks, false).await
    }

    async fn drain_with(&mut self, function: &str, picks: &[u32], poison: bool) -> anyhow::Result<Drained> {
        let before = self.host.counts(function).await?;
        ensure!(before.open() == 0, "{} messages of {function} are left from before", before.open());
        self.host.pause(function).await?;
        let mut waiting = bodies(picks);
        if poison {
            waiting.insert(waiting.len() / 2, "x".repeat(POISON));
        }
        self.fill(function, &waiting).await?;
        let (logged, vitals) = (self.ground.log_bytes().await?, self.host.vitals()?);
        let base = self.load.sum();
        let count = i64::try_from(picks.len())?;
        self.host.resume(function).await?;
        let per_second = self.watch(base, count).await?;
        let (then, now) = (vitals, self.host.vitals()?);
        let logged = match (logged, self.ground.log_bytes().await?) {
            (Some(before), Some(after)) => Some(after.saturating_sub(before) as f64 / count as f64),
            _ => None,
        };
        self.load.count(picks);
        let after = self.until_empty(function).await?;
        let (completed, dead) = (after.completed - before.completed, after.dead - before.dead);
        ensure!(
            (completed, dead) == (picks.len() as u64, u64::from(poison)),
            "{completed} messages of {} were completed, and {dead} are dead",
            waiting.len(),
        );
        self.check().await?;
        Ok(Drained {
            per_second,
            processor_us: now.processor.saturating_sub(then.processor).as_secs_f64() * 1e6 / count as f64,
            log_bytes: logged,
            written_bytes: now.written_bytes.saturating_sub(then.written_bytes) as f64 / count as f64,
            again: (after.attempts - before.attempts).saturating_sub(waiting.len() as u64),
        })
    }

    /// Messages that wait, and nothing else left to do for the database.
    pub(super) async fn fill(&mut self, function: &str, bodies: &[String]) -> anyhow::Result<()> {
        for bodies in bodies.chunks(CHUNK) {
            self.ground.fill(function, bodies).await?;
            yield_now().await; // Whoever is told to end is heard.
        }
        self.ground.settle().await
    }

    /// Messages per second, from the first look that sees work done to the one that sees all of it.
    async fn watch(&mut self, base: i64, count: i64) -> anyhow::Result<f64> {
        let resumed = Instant::now();
        let (mut first, mut last, mut moved) = (None, 0, Instant::now());
        loop {
            let done = self.ground.counted().await? - base;
            let now = Instant::now();
            if done > last {
                (last, moved) = (done, now);
                first.get_or_insert((done, now));
            }
            if done >= count {
                let (already, since) = first.unwrap_or((0, resumed));
                // So few that one look saw them all.
                let (already, since) = if already >= count { (0, resumed) } else { (already, since) };
                return rate(u64::try_from(done - already)?, (now - since).as_secs_f64());
            }
            if moved.elapsed() > PATIENCE {
                bail!("{done} messages of {count} are done, and nothing more happens");
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Returns when nothing waits or runs.
    pub(super) async fn until_empty(&self, function: &str) -> anyhow::Result<crate::experiment::client::Counts> {
        let end = Instant::now() + PATIENCE;
        loop {
            let counts = self.host.counts(function).await?;
            if counts.open() == 0 {
                return Ok(counts);
            }
            ensure!(Instant::now() < end, "{} messages of {function} stay in the queue", counts.open());
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// That every counter is right.
    pub(super) async fn check(&mut self) -> anyhow::Result<()> {
        let found = self.ground.counters().await?;
        self.load.check(found)
    }
}
