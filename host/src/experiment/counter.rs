//! The counter of the seed: is a count that no guest protects still exact when the host is killed all the time?
//!
//! Method: N requests to one counter, each under an idempotency key of its own, sent again until accepted. Meanwhile
//! the host is SIGKILLed and restarted, and after each kill the database file says whether rows were `running`.
//! Measured: the count, read over HTTP two seconds *after* everything is settled, so that an overshoot has time to
//! show; starts, from a file outside the database. How to read it: the count is right or it is not, and a run
//! whose kills did not hit work shows nothing. A begin-once run may end with messages in doubt, never started twice.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::bail;
use rand::SeedableRng as _;
use rand_chacha::ChaCha8Rng;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use self::evidence::Evidence;
use self::killer::{Kill, Killer};
use self::progress::Progress;
use super::client::{Accepted, Client, Counts};
use super::host::{HostOptions, HostProcess};
use super::place::{Place, check_built};
use super::reader::{self, READER};
use super::witness::Witness;
use super::{Environment, Notify, Report};
use crate::message::Contract;

mod progress;
mod load;
mod killer;
mod evidence;
mod verdict;
mod findings;

const FUNCTION: &str = "counter";
/// What must not have happened yet when everything looks right gets this long to happen.
const AFTERWARDS: Duration = Duration::from_secs(2);
/// If nothing moves for this long once the kills are over, it never will.
const STUCK_AFTER: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(50);
const LOOK_WITHIN: Duration = Duration::from_secs(10);

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
    let count = reader::number(&client, "SELECT n FROM counters WHERE id = $1", &[&counter]).await?;
    host.kill().await?;

    let evidence = Evidence { sent, samples, witness, counts, messages, count };
    Ok(findings::report(options, &evidence, environment.finished()))
}

/// Where a run takes place, and what it writes there.
struct Bench {
    place: Place,
    database: String,
    witness: PathBuf,
}

impl Bench {
    fn prepare(options: &Options) -> anyhow::Result<Self> {
        check_built(&options.functions, &[FUNCTION, READER])?;
        let place = Place::take(&options.out)?;
        let witness = place.witness()?;
        let database = options.database.clone().unwrap_or_else(|| place.database("semel"));
        Ok(Self { place, database, witness })
    }

    fn host(&self, options: &Options) -> anyhow::Result<HostOptions> {
        let mut host = HostOptions::new(&self.database, self.place.folder())?.variable("SEMEL_WITNESS", &self.witness);
        if let Some(program) = &options.program {
            host.program.clone_from(program);
        }
        Ok(host)
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_runs_need_fewer_kills() {
        assert_eq!([100, 999, 5000, 10_000, 1_000_000].map(Options::kills_for), [1, 1, 10, 20, 20]);
    }
}
