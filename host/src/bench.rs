//! `semel bench`: how fast Semel is beside what its database can do at all, measured in one run.
//!
//! The floors are plain loops on the same database and disk, without Semel: they say what a message costs that pays for a
//! commit of its own, and what one costs that shares it. Semel is a host of its own process, as in production; its messages
//! wait in the queue before the clock starts. Floors and Semel take turns, round after round, so that a machine that gets
//! slower does so for both; a ratio is made within one round, and the figure is the median over them.
//!
//! Whatever is counted is checked: every counter right, every message completed. Otherwise there is no figure at all.

use std::path::PathBuf;

use anyhow::{Context as _, bail};
use tokio::signal::unix::{SignalKind, signal};

use crate::experiment::{Notify, Place, check_built};

mod drain;
mod file;
mod findings;
mod ground;
mod host;
mod http;
mod ingest;
mod latency;
mod load;
mod long;
mod page;
mod sandbox;
mod server;
mod text;
mod verdict;

pub(crate) use findings::Findings;
use ground::{Ground, Work};
use host::Host;
use load::Load;
pub(crate) use long::{PASSED, WAITING};
use sandbox::Sandbox;

/// The function that is measured, and the same component under a name of its own whose messages share no commit.
const COUNTER: &str = "counter";
const SINGLE: &str = "counter-single";
/// How many counters there are, where it is not one for all.
const COUNTERS: u32 = 1_000;
/// What pays a commit for each message is measured with so many at most: its rate does not depend on how many wait.
const ONE_BY_ONE: u32 = 20_000;
/// Messages per commit of the floor that shares them.
const TOGETHER: u32 = 100;
/// Connections that the floor without sharing is tried with, where the database takes more than one.
const CONNECTIONS: [u32; 5] = [1, 2, 4, 8, 16];

/// What can be measured on its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Part {
    /// Instantiate, call and drop, without a database
    Sandbox,
    /// The database without Semel
    Floors,
    /// A waiting queue, over 1,000 counters
    Drain,
    /// A waiting queue, all for one counter
    Hot,
    /// Requests until they are accepted
    Ingest,
    /// From a request to its committed effect
    Latency,
    /// Resident memory, idle and under load
    Memory,
    /// One message that is refused among many
    Poison,
    /// Drain after many messages have passed (--long)
    Passed,
    /// A claim while many messages wait (--long)
    Claims,
}

impl Part {
    /// What is measured if nothing else is said.
    pub(crate) fn all(long: bool) -> Vec<Self> {
        let short = [
            Self::Sandbox,
            Self::Floors,
            Self::Drain,
            Self::Hot,
            Self::Ingest,
            Self::Latency,
            Self::Memory,
            Self::Poison,
        ];
        short.into_iter().chain([Self::Passed, Self::Claims].into_iter().filter(|_| long)).collect()
    }
}

/// What to do.
#[derive(Debug)]
pub(crate) struct Options {
    /// A server, in which a database is made and dropped, or a file that is not there yet; none: a file in a folder for
    /// temporary ones.
    pub(crate) database: Option<String>,
    /// How many wait when a drain begins.
    pub(crate) messages: u32,
    /// How often everything is measured.
    pub(crate) rounds: u32,
    /// What is measured.
    pub(crate) parts: Vec<Part>,
    /// How many wait when a claim is measured, and how many have passed before a drain.
    pub(crate) waiting: u32,
    pub(crate) passed: u32,
    /// Decides which message is for which counter.
    pub(crate) seed: u64,
    /// Where `make guests` put the functions.
    pub(crate) functions: PathBuf,
}

/// Measures, and leaves nothing behind.
///
/// # Errors
/// If something cannot be measured, or a count is not right: then nothing is known.
pub(crate) async fn run(options: &Options, notify: Notify<'_>) -> anyhow::Result<Findings> {
    check_built(&options.functions, &[COUNTER])?;
    let folder = Folder(std::env::temp_dir().join(format!("semel-bench-{}", std::process::id())));
    let place = Place::take(&folder.0)?;
    let mut ground = ground::open(options.database.as_deref(), &place).await?;
    let mut terminate = signal(SignalKind::terminate())?;
    let measured = tokio::select! {
        measured = measure(options, &place, &mut *ground, notify) => measured,
        _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("interrupted: nothing was measured to its end")),
        _ = terminate.recv() => Err(anyhow::anyhow!("told to end: nothing was measured to its end")),
    };
    let removed = ground.remove().await;
    let findings = measured?;
    removed.context("what was measured could not be cleared away")?;
    Ok(findings)
}

/// Of ours, for as long as this lives.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0); // Best effort: what is left is in the folder for temporary files.
    }
}

async fn measure(
    options: &Options,
    place: &Place,
    ground: &mut dyn Ground,
    notify: Notify<'_>,
) -> anyhow::Result<Findings> {
    let findings = Findings::new(options, ground.facts().await?, ground.others());
    let sandbox = Sandbox::prepare(place, &options.functions).await?;
    notify("starting a host");
    let host = Host::start(place, &ground.url(), &options.functions).await?;
    let load = Load::new(options.seed, COUNTERS.min(options.messages));
    let mut bench = Bench { options, ground, host, load, findings, notify, round: 0 };
    bench.warm_up().await?;
    bench.idle().await?;
    for round in 1..=options.rounds {
        bench.round = round;
        if bench.wants(Part::Sandbox) {
            bench.say("the sandbox alone");
            bench.found("sandbox_us", sandbox.median(options.messages.min(5_000)).await?);
        }
        bench.round().await?;
    }
    bench.at_the_end().await?;
    bench.findings.finish();
    Ok(bench.findings)
}

/// A run of it.
struct Bench<'a> {
    options: &'a Options,
    ground: &'a mut dyn Ground,
    host: Host,
    load: Load,
    findings: Findings,
    notify: Notify<'a>,
    /// From 1.
    round: u32,
}

impl Bench<'_> {
    fn wants(&self, part: Part) -> bool {
        self.options.parts.contains(&part)
    }

    fn say(&self, what: &str) {
        (self.notify)(&format!("round {} of {}: {what}", self.round, self.options.rounds));
    }

    fn found(&mut self, name: &'static str, value: f64) {
        self.findings.add(self.round, name, value);
    }

    /// Every counter is counted once, so that from now on each has its row.
    async fn warm_up(&mut self) -> anyhow::Result<()> {
        let each: Vec<u32> = (0..self.load.counters()).collect();
        self.drain(COUNTER, &each).await?;
        self.drain(SINGLE, &each[..each.len().min(32)]).await?;
        Ok(())
    }

    async fn idle(&mut self) -> anyhow::Result<()> {
        if self.wants(Part::Memory) {
            (self.notify)("a host that does nothing");
            let idle = self.host.idle().await?;
            self.load.count(&[0]); // It has answered one message, to have all it needs.
            self.findings.add(1, "rss_idle_mb", megabytes(idle));
        }
        Ok(())
    }

    /// Everything once: the floors, then Semel.
    async fn round(&mut self) -> anyhow::Result<()> {
        if self.wants(Part::Floors) {
            self.floors().await?;
        }
        if self.wants(Part::Drain) {
            self.drains().await?;
        }
        if self.wants(Part::Hot) {
            self.hot().await?;
        }
        if self.wants(Part::Ingest) {
            self.ingest().await?;
        }
        if self.wants(Part::Latency) {
            self.latency().await?;
        }
        if self.wants(Part::Poison) {
            self.poison().await?;
        }
        Ok(())
    }

    /// What is measured once, and changes the database for good.
    async fn at_the_end(&mut self) -> anyhow::Result<()> {
        let loaded = [Part::Drain, Part::Hot, Part::Ingest, Part::Latency].iter().any(|part| self.wants(*part));
        if self.wants(Part::Memory) && loaded {
            let peak = self.host.vitals()?.peak_bytes;
            self.findings.add(1, "rss_load_mb", megabytes(peak));
        }
        self.round = 1;
        if self.wants(Part::Passed) {
            self.passed().await?;
        }
        self.host.stop().await?;
        if self.wants(Part::Claims) {
            self.claims().await?;
        }
        Ok(())
    }

    /// What the database does without Semel.
    async fn floors(&mut self) -> anyhow::Result<()> {
        let count = self.options.messages.min(ONE_BY_ONE);
        let spread = self.load.picks(count);
        let (hot, most) = (vec![0; spread.len()], self.ground.connections());
        for (single, batched, picks) in
            [("floor_single", "floor_batched", &spread), ("floor_hot_single", "floor_hot_batched", &hot)]
        {
            let mut best = 0.0_f64;
            for connections in CONNECTIONS.into_iter().take_while(|n| *n <= most) {
                self.say(&format!("{single}, connections: {connections}"));
                let rate = self.ground.drain(&Work { picks, together: 1, connections }).await?;
                if rate > best {
                    best = rate;
                    let name = if single == "floor_single" { "floor_connections" } else { "floor_hot_connections" };
                    self.findings.put(self.round, name, connections.into());
                }
            }
            self.found(single, best);
            self.say(batched);
            let rate = self.ground.drain(&Work { picks, together: TOGETHER, connections: 1 }).await?;
            self.found(batched, rate);
        }
        Ok(())
    }

    /// How the database takes messages in, each with a commit of its own.
    async fn floor_of_inserts(&mut self) -> anyhow::Result<()> {
        let count = self.options.messages.min(ONE_BY_ONE);
        self.say("floor_insert");
        let one = self.ground.insert(count, 1).await?;
        self.found("floor_insert", one.rate);
        self.found("commit_us", one.median.as_secs_f64() * 1e6);
        let (mut best, most) = (one.rate, self.ground.connections());
        for connections in [8, 32].into_iter().take_while(|n| *n <= most) {
            self.say(&format!("floor_insert, connections: {connections}"));
            best = best.max(self.ground.insert(count, connections).await?.rate);
        }
        self.found("floor_insert_parallel", best);
        Ok(())
    }
}

fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

/// Refuses a number that was measured and cannot be.
fn rate(count: u64, seconds: f64) -> anyhow::Result<f64> {
    if count == 0 || seconds <= 0.0 {
        bail!("nothing was measured: {count} messages in {seconds} s");
    }
    Ok(count as f64 / seconds)
}
