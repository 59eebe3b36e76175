//! Two measurements that take minutes: a claim while very many messages wait, and a drain after very many have passed.
//! Both databases are filled by SQL; what is measured is Semel's own.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use tokio::task::yield_now;

use super::drain::CHUNK;
use super::load::{bodies, name};
use super::{Bench, COUNTER};
use crate::message::Contract;
use crate::store::{self, ClaimRequest, Lane, Store};

pub(crate) const WAITING: u32 = 1_000_000;
pub(crate) const PASSED: u32 = 5_000_000;
const FEW: u32 = 1_000;
/// Messages of one claim, and claims whose median is taken.
const CLAIM: u32 = 100;
const CLAIMS: u32 = 51;
/// Drains on each side.
const DRAINS: u32 = 3;

impl Bench<'_> {
    /// Drains before and after a history of very many messages.
    pub(super) async fn passed(&mut self) -> anyhow::Result<()> {
        let exact = self.options.passed == PASSED;
        for name in ["drain_fresh", if exact { "drain_after_5m" } else { "drain_after_many" }] {
            if name != "drain_fresh" {
                self.say(&format!("a history of {} messages", self.options.passed));
                let mut left = self.options.passed;
                while left > 0 {
                    let some = left.min(CHUNK as u32);
                    self.ground.pass(COUNTER, some).await?;
                    left -= some;
                    yield_now().await; // Whoever is told to end is heard.
                }
                self.ground.settle().await?;
            }
            for _ in 0..DRAINS {
                self.say(name);
                let picks = self.load.picks(self.options.messages);
                let drained = self.drain(COUNTER, &picks).await?;
                self.found(name, drained.per_second);
            }
        }
        Ok(())
    }

    /// Claims in a short queue, and in a very long one. The host is down; afterwards the database is good for nothing more.
    pub(super) async fn claims(&mut self) -> anyhow::Result<()> {
        let store = store::open(&self.ground.url()).await?;
        let functions = store.functions().await?;
        let active = functions.iter().find(|function| function.name == COUNTER).context("the counter is not there")?;
        let version = active.active.version;
        let many = if self.options.waiting == WAITING { "claim_1m_us" } else { "claim_many_us" };
        let mut waiting = 0;
        for (figure, wanted) in [("claim_1k_us", FEW), (many, self.options.waiting)] {
            self.say(&format!("{figure}: {wanted} messages wait"));
            let more: Vec<u32> = (waiting..wanted).map(|number| number % 1_000).collect();
            self.fill(COUNTER, &bodies(&more)).await?;
            waiting = waiting.max(wanted);
            let mut times = Vec::new();
            for _ in 0..CLAIMS {
                times.push(claim(&*store, version).await?);
                // As many come as go, so that the queue stays as long, and as used, as it was.
                self.ground.take_out_claimed().await?;
                let as_many: Vec<String> = (0..CLAIM).map(name).collect();
                self.ground.fill(COUNTER, &as_many).await?;
            }
            times.sort_unstable();
            let median = times.get(times.len() / 2).copied().unwrap_or_default();
            self.found(figure, median.as_secs_f64() * 1e6);
        }
        Ok(())
    }
}

async fn claim(store: &dyn Store, version: i64) -> anyhow::Result<Duration> {
    let lane = Lane {
        function: COUNTER.into(),
        version,
        contract: Contract::FinishOnce,
        max_attempts: 5,
        lease: Duration::from_secs(60),
        limit: CLAIM,
        concurrency: None,
        rate: None,
    };
    let request = ClaimRequest { lanes: vec![lane], limit: CLAIM, suspects: false, host: "bench".into() };
    let began = Instant::now();
    let claimed = store.claim(request).await?;
    let took = began.elapsed();
    ensure!(claimed.len() == CLAIM as usize, "{} messages were claimed instead of {CLAIM}", claimed.len());
    Ok(took)
}
