//! The counter of the seed: is a count that no guest protects still exact when hosts and database fail all the time?
//!
//! Method: N requests to one counter, each under an idempotency key of its own, sent again until accepted. Meanwhile
//! hosts are SIGKILLed and restarted, and after each kill the database says whether their rows were `running`. On a
//! database that hosts share there is more: its server is SIGKILLed and restarted, hosts stand still until others have
//! taken their work over and then go on, and COMMITs or their answers are lost on the way.
//! Measured: the count, read over HTTP two seconds *after* everything is settled, so that an overshoot has time to
//! show; starts, from a file outside the database. How to read it: the count is right or it is not, and a run
//! whose faults did not hit work shows nothing. A begin-once run may end with messages in doubt, never started twice.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use rand::SeedableRng as _;
use rand_chacha::ChaCha8Rng;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use self::evidence::Evidence;
use self::faults::{Done, Trouble};
use self::hosts::Hosts;
use self::progress::Progress;
use super::client::{Accepted, Client, Counts};
use super::place::{Place, check_built};
use super::proxy::Fired;
use super::reader::{self, READER};
use super::server::Server;
use super::witness::Witness;
use super::{Environment, Notify, Report};
use crate::message::Contract;
use crate::store;

mod progress;
mod load;
mod hosts;
mod faults;
mod zombie;
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
/// What the function is deployed with where hosts share a database: a dead host's work waits for its lease to end, and
/// many faults may hit one message.
const LEASE: Duration = Duration::from_secs(3);
const SHARED_LIMITS: &str = "timeout = \"1500ms\"\nlease = \"3s\"";
const SHARED_RETRY: &str = "max_attempts = 100\nbackoff = { initial = \"50ms\", max = \"500ms\" }";

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
    /// Hosts at work at the same time; more than one needs a database that they share.
    pub hosts: usize,
    /// Faults that must hit work.
    pub faults: Faults,
    /// Where `make guests` put the functions.
    pub functions: PathBuf,
    /// The contract to put to the test.
    pub contract: Contract,
    /// Senders at work at the same time.
    pub clients: usize,
}

/// How many faults of each kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Faults {
    /// SIGKILL to a host that holds claims.
    pub kills: u64,
    /// SIGKILL to all processes of the database's server while hosts hold claims.
    pub database_kills: u64,
    /// Hosts that stand still until another has taken over what they did, and then go on.
    pub zombies: u64,
    /// Commits of effects that do not reach the database, or whose answer does not reach the host.
    pub lost_commits: u64,
}

impl Faults {
    /// As many as a run of that length has room for: at 10,000 messages and more 20 kills, and where hosts share the
    /// database 5 kills of that, 3 zombies and 10 lost commits.
    #[must_use]
    pub fn for_run(messages: u64, database: Option<&str>) -> Self {
        let kills = (messages / 500).clamp(1, 20);
        if !database.is_some_and(store::is_shared) {
            return Self { kills, ..Self::default() };
        }
        let [database_kills, zombies, lost_commits] =
            [(2000, 5), (3000, 3), (1000, 10)].map(|(each, most)| (messages / each).clamp(1, most));
        Self { kills, database_kills, zombies, lost_commits }
    }
}

/// What became of the requests, and when.
struct Sent {
    accepted: Vec<Accepted>,
    done: Done,
    /// From the first request to the last answer.
    accepting: Duration,
    /// From the first request until everything was settled.
    settling: Duration,
}

/// Commits whose answers were lost.
struct Lost {
    fired: Fired,
    /// What hosts found out about commits of which they did not know: done, not done, refused by the fence.
    resolved: [u64; 3],
}

/// Runs the experiment. The report is the caller's to write and print.
///
/// # Errors
/// If the experiment could not be carried out. A broken promise is not an error, but a verdict.
pub async fn run(options: &Options, notify: Notify<'_>) -> anyhow::Result<Report> {
    let mut bench = Bench::prepare(options)?;
    let environment = Environment::observe(options.seed, &bench.database);
    let server = bench.server(options)?;
    let mut hosts = bench.start(options).await?;
    let client = hosts.client()?;

    let counter = Uuid::now_v7().to_string();
    let progress = Arc::new(Progress::new(options.messages));
    let mut samples = Vec::new();
    let logs = hosts.logs();
    let sent = tokio::select! {
        sent = send_and_harm(options, &mut hosts, server, &counter, &progress) => sent,
        stalled = progress.watch(&mut samples, notify) => Err(stalled),
    };
    let sent = sent.with_context(|| format!("the hosts' logs: {logs}"))?;
    sleep(AFTERWARDS).await;

    // Before the reader runs: then every start in the file is the counter's.
    let witness = Witness::read(&bench.witness)?;
    let counts = client.counts(FUNCTION).await?;
    let messages = client.messages(FUNCTION).await?;
    let count = reader::number(&client, "SELECT n FROM counters WHERE id = $1", &[&counter]).await?;
    let taken = fates(&client, &sent.done).await?;
    let [done, undone, refused] = ["done", "not-done", "refused"].map(|outcome| hosts.resolved(outcome));
    let lost = Lost { fired: hosts.lost_commits(), resolved: [done?, undone?, refused?] };
    hosts.kill().await?;

    let evidence = Evidence { sent, samples, witness, counts, messages, count, taken, lost };
    Ok(findings::report(options, &evidence, environment.finished()))
}

/// How the claims ended that were taken over from hosts that stood still, by what these wrote when they went on.
async fn fates(client: &Client, done: &Done) -> anyhow::Result<BTreeMap<String, u64>> {
    let mut fates = BTreeMap::new();
    for claim in done.zombies.iter().flat_map(|zombie| &zombie.taken) {
        let attempts = client.attempts(&claim.message).await?;
        let attempt = attempts.into_iter().find(|attempt| attempt.attempt == claim.attempt);
        *fates.entry(attempt.map_or_else(|| "not on record".to_owned(), |attempt| attempt.outcome)).or_default() += 1;
    }
    Ok(fates)
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
        let Faults { database_kills, zombies, lost_commits, .. } = options.faults;
        let shared = options.database.as_deref().is_some_and(store::is_shared);
        ensure!(options.hosts > 0, "there is nothing to see without a host");
        if !shared && (options.hosts > 1 || database_kills + zombies + lost_commits > 0) {
            bail!(
                "a database in a file has one host, and nothing else that could fail: more hosts, --database-kills, \
                 --zombies and --lost-commits need --database with the URL of a server"
            );
        }
        ensure!(
            zombies == 0 || options.hosts > 1,
            "nobody takes a zombie's work over: --zombies needs --hosts 2 or more"
        );
        let place = Place::take(&options.out)?;
        let witness = place.witness()?;
        let database = options.database.clone().unwrap_or_else(|| place.database("semel"));
        Ok(Self { place, database, witness })
    }

    /// The database's server, if it is to be killed.
    fn server(&self, options: &Options) -> anyhow::Result<Option<Server>> {
        if options.faults.database_kills == 0 {
            return Ok(None);
        }
        let found = Server::find(&self.database, self.place.folder().join("database.log"));
        found.map(Some).context("cannot kill the database (--database-kills 0 leaves it alone)")
    }

    /// All hosts, with the functions deployed. The others are started after that, since a host reads its catalog then.
    async fn start(&mut self, options: &Options) -> anyhow::Result<Hosts> {
        let mut hosts = Hosts::start(&self.place, self.database.clone(), options).await?;
        let client = hosts.client()?;
        let contract = (options.contract != Contract::default()).then(|| options.contract.as_str());
        let function = options.functions.join(FUNCTION);
        if store::is_shared(&self.database) {
            let function = self.place.variant(&function, &[("limits", SHARED_LIMITS), ("retry", SHARED_RETRY)])?;
            client.deploy(&function, contract).await?;
        } else {
            client.deploy(&function, contract).await?;
        }
        client.deploy(&options.functions.join(READER), None).await?;
        let counts = client.counts(FUNCTION).await?;
        if counts.open() + counts.settled() > 0 {
            bail!("the database holds messages of `{FUNCTION}` already: give one without, or none");
        }
        while hosts.count() < options.hosts {
            hosts.add(&self.place, options).await?;
        }
        Ok(hosts)
    }
}

async fn send_and_harm(
    options: &Options,
    hosts: &mut Hosts,
    server: Option<Server>,
    counter: &str,
    progress: &Arc<Progress>,
) -> anyhow::Result<Sent> {
    let began = Instant::now();
    let clients = hosts.clients();
    let random = ChaCha8Rng::seed_from_u64(options.seed);
    let trouble = Trouble { hosts, server, progress, random, wanted: options.faults, done: Done::default() };
    let send = async {
        let accepted = load::send_all(&clients, progress, counter, options.clients).await?;
        anyhow::Ok((accepted, began.elapsed()))
    };
    let ((accepted, accepting), (hosts, done)) = tokio::try_join!(send, trouble.run())?;
    let settling = settle(hosts, progress, began).await?;
    Ok(Sent { accepted, done, accepting, settling })
}

/// Waits until every message is at rest, or until it is clear that some will not be: that is for the verdict to say.
async fn settle(hosts: &mut Hosts, progress: &Progress, began: Instant) -> anyhow::Result<Duration> {
    let mut last = (Counts::default(), Instant::now());
    loop {
        hosts.check_alive()?;
        progress.look(&hosts.client()?, LOOK_WITHIN).await;
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
    fn short_runs_need_fewer_faults() {
        let kills = |messages| Faults::for_run(messages, None).kills;
        assert_eq!([100, 999, 5000, 10_000, 1_000_000].map(kills), [1, 1, 10, 20, 20]);
        let shared = |messages| Faults::for_run(messages, Some("postgres://host/db"));
        assert_eq!(shared(100), Faults { kills: 1, database_kills: 1, zombies: 1, lost_commits: 1 });
        assert_eq!(shared(10_000), Faults { kills: 20, database_kills: 5, zombies: 3, lost_commits: 10 });
    }
}
