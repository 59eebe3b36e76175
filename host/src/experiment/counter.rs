//! The counter of the seed: is a count that no guest protects still exact when the host is killed all the time?
//!
//! Method: N requests to one counter, each under an idempotency key of its own, sent again until accepted. Meanwhile
//! the host is SIGKILLed and restarted, and after each kill the database file says whether rows were `running`.
//! Measured: the count, read over HTTP two seconds *after* everything is settled, so that an overshoot has time to
//! show; starts, from a file outside the database. How to read it: the count is right or it is not, and a run
//! whose kills did not hit work shows nothing. A begin-once run may end with messages in doubt, never started twice.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use rand::SeedableRng as _;
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use self::evidence::{Evidence, Witness};
use self::killer::{Kill, Killer};
use self::progress::Progress;
use super::client::{Accepted, Client, Counts};
use super::host::{HostOptions, HostProcess};
use super::{Environment, Report};
use crate::message::Contract;

mod progress;
mod load;
mod killer;
mod evidence;
mod verdict;
mod findings;

const FUNCTION: &str = "counter";
/// Reads the count: guests' tables are nobody's business but guests'.
const READER: &str = "sqlshell";
/// What must not have happened yet when everything looks right gets this long to happen.
const AFTERWARDS: Duration = Duration::from_secs(2);
/// If nothing moves for this long once the kills are over, it never will.
const STUCK_AFTER: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(50);
const LOOK_WITHIN: Duration = Duration::from_secs(10);

/// Takes one line about how far the experiment is, about once a second.
pub type Notify<'a> = &'a (dyn Fn(&str) + Send + Sync);

/// What to do.
#[derive(Debug, Clone)]
pub struct Options {
    /// The host's binary, if it is not the running program.
    pub program: Option<PathBuf>,
    /// A database without messages of `counter`; without one, a fresh file in the output folder.
    pub database: Option<String>,
    /// Repeats the intervals between the kills.
    pub seed: u64,
    /// Where the report goes, and what the run leaves behind.
    pub out: PathBuf,
    /// Requests to send.
    pub messages: u64,
    /// Kills that must hit running work.
    pub kills: u64,
    /// Where `make guests` put the functions.
    pub functions: PathBuf,
    /// The contract to put to the test.
    pub contract: Contract,
    /// Senders at work at the same time.
    pub clients: usize,
}

impl Options {
    /// As many kills as a run of that length has room for: 20 at 10,000 messages and more.
    #[must_use]
    pub fn kills_for(messages: u64) -> u64 {
        (messages / 500).clamp(1, 20)
    }
}

/// What became of the requests, and when.
struct Sent {
    accepted: Vec<Accepted>,
    kills: Vec<Kill>,
    /// From the first request to the last answer.
    accepting: Duration,
    /// From the first request until everything was settled.
    settling: Duration,
}

/// Runs the experiment. The report is the caller's to write and print.
///
/// # Errors
/// If the experiment could not be carried out. A broken promise is not an error, but a verdict.
pub async fn run(options: &Options, notify: Notify<'_>) -> anyhow::Result<Report> {
    let bench = Bench::prepare(options)?;
    let environment = Environment::observe(options.seed, &bench.database);
    let mut host = HostProcess::start(bench.host(options)?).await?;
    let client = host.client().clone();
    install(&client, options).await?;

    let counter = Uuid::now_v7().to_string();
    let progress = Arc::new(Progress::new(options.messages));
    let mut samples = Vec::new();
    let sent = tokio::select! {
        sent = send_and_kill(options, &mut host, &counter, &progress) => sent?,
        stalled = progress.watch(&mut samples, notify) => {
            return Err(stalled.context(format!("the host's log is {}", host.log().display())));
        }
    };
    sleep(AFTERWARDS).await;

    // Before the reader runs: then every start in the file is the counter's.
    let witness = Witness::read(&bench.witness)?;
    let counts = client.counts(FUNCTION).await?;
    let messages = client.messages(FUNCTION).await?;
    let count = read_count(&client, &counter).await?;
    host.kill().await?;

    let evidence = Evidence { sent, samples, witness, counts, messages, count };
    Ok(findings::report(options, &evidence, environment.finished()))
}

/// The folder of a run, held by a lock: two runs in one folder would delete each other's database.
struct Bench {
    folder: PathBuf,
    database: String,
    witness: PathBuf,
    _lock: File,
}

impl Bench {
    fn prepare(options: &Options) -> anyhow::Result<Self> {
        for function in [FUNCTION, READER] {
            if !options.functions.join(function).is_dir() {
                let place = options.functions.display();
                bail!("there is no function `{function}` in {place}: `make guests` builds it, --functions says where");
            }
        }
        let folder = std::path::absolute(options.out.join("run")).context("cannot tell where the output goes")?;
        let made = fs::create_dir_all(&folder).and_then(|()| File::create(folder.join("lock")));
        let lock = made.with_context(|| format!("cannot write to {}", folder.display()))?;
        if lock.try_lock().is_err() {
            bail!("another experiment is at work in {}: give this one another --out", folder.display());
        }
        let file = folder.join("semel.db");
        let witness = folder.join("witness.txt");
        remove_leftovers(&folder)?;
        File::create(&witness).context("cannot make the witness file")?;
        let database = options.database.clone().unwrap_or_else(|| format!("sqlite://{}", file.display()));
        Ok(Self { folder, database, witness, _lock: lock })
    }

    fn host(&self, options: &Options) -> anyhow::Result<HostOptions> {
        let mut host = HostOptions::new(&self.database, &self.folder)?.variable("SEMEL_WITNESS", &self.witness);
        if let Some(program) = &options.program {
            host.program.clone_from(program);
        }
        Ok(host)
    }
}

/// Only what an earlier run made itself: the folder's name was the user's choice.
fn remove_leftovers(folder: &Path) -> anyhow::Result<()> {
    for entry in fs::read_dir(folder).context("cannot read the folder of the run")? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with("semel.db") {
            let path = entry.path();
            fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
        }
    }
    Ok(())
}

async fn install(client: &Client, options: &Options) -> anyhow::Result<()> {
    let contract = (options.contract != Contract::default()).then(|| options.contract.as_str());
    client.deploy(&options.functions.join(FUNCTION), contract).await?;
    client.deploy(&options.functions.join(READER), None).await?;
    let counts = client.counts(FUNCTION).await?;
    if counts.open() + counts.settled() > 0 {
        bail!("the database holds messages of `{FUNCTION}` already: give one without, or none");
    }
    Ok(())
}

async fn send_and_kill(
    options: &Options,
    host: &mut HostProcess,
    counter: &str,
    progress: &Arc<Progress>,
) -> anyhow::Result<Sent> {
    let began = Instant::now();
    let client = host.client().clone();
    let killer = Killer::new(host, progress, ChaCha8Rng::seed_from_u64(options.seed), options.kills);
    let send = async {
        let accepted = load::send_all(&client, progress, counter, options.clients).await?;
        anyhow::Ok((accepted, began.elapsed()))
    };
    let ((accepted, accepting), kills) = tokio::try_join!(send, killer.run())?;
    let settling = settle(host, progress, began).await?;
    Ok(Sent { accepted, kills, accepting, settling })
}

/// Waits until every message is at rest, or until it is clear that some will not be: that is for the verdict to say.
async fn settle(host: &mut HostProcess, progress: &Progress, began: Instant) -> anyhow::Result<Duration> {
    let mut last = (Counts::default(), Instant::now());
    loop {
        host.check_alive()?;
        progress.look(host.client(), LOOK_WITHIN).await;
        let counts = progress.counts();
        if progress.is_settled() {
            return Ok(began.elapsed());
        }
        if counts != last.0 {
            last = (counts, Instant::now());
        }
        if last.1.elapsed() > STUCK_AFTER {
            return Ok(last.1 - began);
        }
        sleep(POLL).await;
    }
}

async fn read_count(client: &Client, counter: &str) -> anyhow::Result<u64> {
    let statement = json!({ "sql": "SELECT n FROM counters WHERE id = $1", "params": [counter] });
    let answer = client.call(READER, &json!({ "statements": [statement] }), Duration::from_secs(10)).await?;
    counted(&answer).with_context(|| format!("cannot find the count in the answer of `{READER}`: {answer}"))
}

/// No row is a count of 0. A 64-bit number may come as text, since JSON's numbers are not all exact.
fn counted(answer: &Value) -> Option<u64> {
    match answer.pointer("/results/0/rows")?.as_array()?.first() {
        None => Some(0),
        Some(row) => match row.get(0)? {
            Value::String(text) => text.parse().ok(),
            number => number.as_u64(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_count_is_found_as_number_as_text_and_as_no_row() {
        let answer = |rows: Value| json!({ "results": [{ "columns": ["n"], "rows": rows }] });
        assert_eq!(counted(&answer(json!([[10_000]]))), Some(10_000));
        assert_eq!(counted(&answer(json!([["10000"]]))), Some(10_000));
        assert_eq!(counted(&answer(json!([]))), Some(0));
        assert_eq!(counted(&json!({ "error": "no such table" })), None);
    }

    #[test]
    fn short_runs_need_fewer_kills() {
        assert_eq!([100, 999, 5000, 10_000, 1_000_000].map(Options::kills_for), [1, 1, 10, 20, 20]);
    }
}
