//! `semel experiment NAME`: puts one of Semel's claims to the test, against a host of its own.
//!
//! The table and the verdict go to standard output, one line a second on progress to standard error, the JSON and
//! the page with plots to `--out`. Exit code 0 is a verdict of PASS, and nothing else is.

use std::io::{Write as _, stdout};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Subcommand};
use tokio::signal::unix::{SignalKind, signal};

use crate::experiment::outbox::sink_down;
use crate::experiment::{Report, counter, crash_matrix, email, failures, fuel, outbox, publish, timeouts};
use crate::message::Contract;
use crate::store::is_shared;

/// Put one of Semel's claims to the test
#[derive(Debug, Args)]
pub(crate) struct Experiment {
    #[command(subcommand)]
    which: Which,
}

#[derive(Debug, Subcommand)]
enum Which {
    Counter(Counter),
    CrashMatrix(CrashMatrix),
    Failures(Failures),
    Fuel(Fuel),
    Timeouts(Timeouts),
    Publish(Publish),
    Email(Email),
    Outbox(Outbox),
    SinkDown(SinkDown),
}

/// Count requests while hosts and database are killed all the time: the count must be exact
#[derive(Debug, Args)]
struct Counter {
    /// A database without messages of `counter`; with that of a server (of this machine, if it is to be killed) there are
    /// more hosts and more faults [default: a fresh file in the output folder]
    #[arg(long, value_name = "URL")]
    database: Option<String>,
    /// Repeats the order of the faults and the time between them [default: random]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Where the report goes
    #[arg(long, value_name = "DIR", default_value = "target/experiments/counter")]
    out: PathBuf,
    /// Requests to send
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..))]
    messages: u64,
    /// Hosts that share the database [default: 2, and 1 on a file]
    #[arg(long, value_name = "N")]
    hosts: Option<usize>,
    /// SIGKILLs of hosts that must hit running work [default: one per 500 messages, 1 to 20]
    #[arg(long, value_name = "K")]
    kills: Option<u64>,
    /// SIGKILLs of the database's server, all its processes, that must hit running work [default: one per 2000 messages, 1
    /// to 5; 0 on a file]
    #[arg(long, value_name = "K")]
    database_kills: Option<u64>,
    /// Hosts that are stopped until another has taken over their work, and then go on [default: one per 3000 messages, 1 to
    /// 3; 0 on a file]
    #[arg(long, value_name = "K")]
    zombies: Option<u64>,
    /// Commits that are lost on their way to the database, or their answers [default: one per 1000 messages, 1 to 10; 0 on
    /// a file]
    #[arg(long, value_name = "K")]
    lost_commits: Option<u64>,
    /// Where `make guests` put the functions
    #[arg(long, value_name = "DIR", default_value = "target/functions")]
    functions: PathBuf,
    /// The promise to put to the test
    #[arg(long, value_enum, default_value_t = Contract::FinishOnce)]
    contract: Contract,
    /// Requests on their way at the same time
    #[arg(long, value_name = "N", default_value_t = 16)]
    clients: usize,
}

/// Kill hosts at every step of a message, and count each of its effects: once, twice, or never?
#[derive(Debug, Args)]
struct CrashMatrix {
    /// A database of a server of this machine that nobody else uses, to do the same there as on files; the server is killed
    /// as well
    #[arg(long, value_name = "URL")]
    database: Option<String>,
    /// Repeats the order of the cells [default: random]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Where the report goes
    #[arg(long, value_name = "DIR", default_value = "target/experiments/crash-matrix")]
    out: PathBuf,
    /// Where `make guests` put the functions
    #[arg(long, value_name = "DIR", default_value = "target/functions")]
    functions: PathBuf,
    /// Only a few cells of each kind
    #[arg(long)]
    reduced: bool,
}

/// Run functions that misbehave in every way: each must end by itself, and leave the host as it was
#[derive(Debug, Args)]
struct Failures {
    /// Repeats the order of the messages [default: random]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Where the report goes
    #[arg(long, value_name = "DIR", default_value = "target/experiments/failures")]
    out: PathBuf,
    /// Messages that misbehave, in all
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..))]
    messages: u64,
    /// Where `make guests` put the functions
    #[arg(long, value_name = "DIR", default_value = "target/functions")]
    functions: PathBuf,
    /// Requests on their way at the same time
    #[arg(long, value_name = "N", default_value_t = 16)]
    clients: usize,
    /// Calls of `counter` that are timed, before and after
    #[arg(long, value_name = "N", default_value_t = 1000)]
    samples: usize,
}

/// Give work too little fuel and enough: what a message uses is the same on every attempt and every host
#[derive(Debug, Args)]
struct Fuel {
    #[command(flatten)]
    on: On,
    /// Where the report goes
    #[arg(long, value_name = "DIR", default_value = "target/experiments/fuel")]
    out: PathBuf,
    /// Messages of each kind of work, and for each budget
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    messages: u64,
    /// Attempts at each message without a budget
    #[arg(long, value_name = "N", default_value_t = 6, value_parser = clap::value_parser!(u32).range(3..))]
    attempts: u32,
}

/// Cross leases, hard timeouts and run times, with and without heartbeat: where is work taken over that still runs?
#[derive(Debug, Args)]
struct Timeouts {
    #[command(flatten)]
    on: On,
    /// Where the report goes
    #[arg(long, value_name = "DIR", default_value = "target/experiments/timeouts")]
    out: PathBuf,
    /// Messages of each combination
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..))]
    messages: u64,
    /// All times are 0 to 28 of these
    #[arg(long, value_name = "MILLISECONDS", default_value_t = 400, value_parser = clap::value_parser!(u64).range(50..))]
    unit: u64,
}

/// Write and publish as people do, with a crash between any two steps: how often is the message published?
#[derive(Debug, Args)]
struct Publish {
    #[command(flatten)]
    on: On,
    /// Where the report goes
    #[arg(long, value_name = "DIR", default_value = "target/experiments/publish")]
    out: PathBuf,
}

/// Send a mail by lock, check, send, record, unlock, with a crash between any two steps, and then deferred: how many are sent?
#[derive(Debug, Args)]
struct Email {
    #[command(flatten)]
    on: On,
    /// Where the report goes
    #[arg(long, value_name = "DIR", default_value = "target/experiments/email")]
    out: PathBuf,
}

/// Relay events to RabbitMQ and NATS and back in, while hosts and brokers are killed: each must be handled exactly once
#[derive(Debug, Args)]
struct Outbox {
    #[command(flatten)]
    on: On,
    /// Where the report goes
    #[arg(long, value_name = "DIR", default_value = "target/experiments/outbox")]
    out: PathBuf,
    /// Messages to send, each of which publishes an event
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(10..))]
    messages: u64,
    /// SIGKILLs of hosts that relay, every second one between a broker's confirmation and its record
    #[arg(long, value_name = "K", default_value_t = 10)]
    kills: u64,
    /// SIGKILLs of each broker, and of each host that receives from one
    #[arg(long, value_name = "K", default_value_t = 3)]
    broker_kills: u64,
    /// Where the scripts are that start brokers: `rabbitmq FOLDER PORT` and `nats FOLDER PORT`
    #[arg(long, value_name = "DIR", default_value = ".ci")]
    scripts: PathBuf,
}

/// Kill one broker for minutes, under load, again and again: the other one must be given events as fast as ever
#[derive(Debug, Args)]
struct SinkDown {
    #[command(flatten)]
    on: On,
    /// Where the report goes
    #[arg(long, value_name = "DIR", default_value = "target/experiments/sink-down")]
    out: PathBuf,
    /// Times that it is killed
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..))]
    pairs: u64,
    /// How long it stays away
    #[arg(long, value_name = "SECONDS", default_value_t = 180, value_parser = clap::value_parser!(u64).range(3..))]
    down: u64,
    /// Events per second
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u64).range(8..))]
    pace: u64,
    /// Where the scripts are that start brokers: `rabbitmq FOLDER PORT` and `nats FOLDER PORT`
    #[arg(long, value_name = "DIR", default_value = ".ci")]
    scripts: PathBuf,
}

/// Where an experiment takes place.
#[derive(Debug, Args)]
struct On {
    /// An empty database; that of a server can have more hosts [default: a fresh file in the output folder]
    #[arg(long, value_name = "URL")]
    database: Option<String>,
    /// Repeats what is left to chance [default: random]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Where `make guests` put the functions
    #[arg(long, value_name = "DIR", default_value = "target/functions")]
    functions: PathBuf,
}

impl Experiment {
    /// Runs it, and says whether the verdict is PASS.
    pub(crate) async fn execute(self) -> anyhow::Result<bool> {
        // A host that outlives its experiment would hold the database: being told to end must drop it first.
        let mut terminate = signal(SignalKind::terminate())?;
        tokio::select! {
            verdict = self.which.execute() => verdict,
            _ = tokio::signal::ctrl_c() => anyhow::bail!("interrupted"),
            _ = terminate.recv() => anyhow::bail!("told to end"),
        }
    }
}

impl Which {
    async fn execute(self) -> anyhow::Result<bool> {
        match self {
            Self::Counter(counter) => counter.execute().await,
            Self::CrashMatrix(matrix) => matrix.execute().await,
            Self::Failures(failures) => failures.execute().await,
            Self::Fuel(fuel) => fuel.execute().await,
            Self::Timeouts(timeouts) => timeouts.execute().await,
            Self::Publish(publish) => publish.execute().await,
            Self::Email(email) => email.execute().await,
            Self::Outbox(outbox) => outbox.execute().await,
            Self::SinkDown(down) => down.execute().await,
        }
    }
}

impl Counter {
    async fn execute(self) -> anyhow::Result<bool> {
        let default = counter::Faults::for_run(self.messages, self.database.as_deref());
        let shared = self.database.as_deref().is_some_and(is_shared);
        let hosts = self.hosts.unwrap_or(if shared { 2 } else { 1 });
        let options = counter::Options {
            program: None,
            database: self.database,
            seed: seed(self.seed),
            out: self.out,
            messages: self.messages,
            hosts,
            faults: counter::Faults {
                kills: self.kills.unwrap_or(default.kills),
                database_kills: self.database_kills.unwrap_or(default.database_kills),
                zombies: self.zombies.unwrap_or(if hosts > 1 { default.zombies } else { 0 }),
                lost_commits: self.lost_commits.unwrap_or(default.lost_commits),
            },
            functions: self.functions,
            contract: self.contract,
            clients: self.clients,
        };
        let report = counter::run(&options, &|line| eprintln!("{line}")).await?;
        show(&report, &options.out)
    }
}

impl CrashMatrix {
    async fn execute(self) -> anyhow::Result<bool> {
        let options = crash_matrix::Options {
            program: None,
            database: self.database,
            seed: seed(self.seed),
            out: self.out,
            functions: self.functions,
            reduced: self.reduced,
        };
        let report = crash_matrix::run(&options, &|line| eprintln!("{line}")).await?;
        show(&report, &options.out)
    }
}

impl Failures {
    async fn execute(self) -> anyhow::Result<bool> {
        let options = failures::Options {
            program: None,
            seed: seed(self.seed),
            out: self.out,
            messages: self.messages,
            functions: self.functions,
            clients: self.clients,
            samples: self.samples,
        };
        let report = failures::run(&options, &|line| eprintln!("{line}")).await?;
        show(&report, &options.out)
    }
}

impl Fuel {
    async fn execute(self) -> anyhow::Result<bool> {
        let Self { on: On { database, seed: given, functions }, out, messages, attempts } = self;
        let options = fuel::Options { program: None, database, seed: seed(given), out, messages, attempts, functions };
        show(&fuel::run(&options, &|line| eprintln!("{line}")).await?, &options.out)
    }
}

impl Timeouts {
    async fn execute(self) -> anyhow::Result<bool> {
        let Self { on: On { database, seed: given, functions }, out, messages, unit } = self;
        let unit = Duration::from_millis(unit);
        let options = timeouts::Options { program: None, database, seed: seed(given), out, messages, unit, functions };
        show(&timeouts::run(&options, &|line| eprintln!("{line}")).await?, &options.out)
    }
}

impl Publish {
    async fn execute(self) -> anyhow::Result<bool> {
        let Self { on: On { database, seed: given, functions }, out } = self;
        let trials = publish::trials::Trial::all();
        let options = publish::Options { program: None, database, seed: seed(given), out, trials, functions };
        show(&publish::run(&options, &|line| eprintln!("{line}")).await?, &options.out)
    }
}

impl Email {
    async fn execute(self) -> anyhow::Result<bool> {
        let Self { on: On { database, seed: given, functions }, out } = self;
        let trials = email::trials::Trial::all();
        let options = email::Options { program: None, database, seed: seed(given), out, trials, functions };
        show(&email::run(&options, &|line| eprintln!("{line}")).await?, &options.out)
    }
}

impl Outbox {
    async fn execute(self) -> anyhow::Result<bool> {
        let Self { on: On { database, seed: given, functions }, out, messages, kills, broker_kills, scripts } = self;
        let seed = seed(given);
        let options =
            outbox::Options { program: None, database, seed, out, messages, kills, broker_kills, functions, scripts };
        show(&outbox::run(&options, &|line| eprintln!("{line}")).await?, &options.out)
    }
}

impl SinkDown {
    async fn execute(self) -> anyhow::Result<bool> {
        let Self { on: On { database, seed: given, functions }, out, pairs, down, pace, scripts } = self;
        let (seed, down) = (seed(given), Duration::from_secs(down));
        let options = sink_down::Options { program: None, database, seed, out, pairs, down, pace, functions, scripts };
        show(&sink_down::run(&options, &|line| eprintln!("{line}")).await?, &options.out)
    }
}

fn seed(given: Option<u64>) -> u64 {
    given.unwrap_or_else(|| rand::random::<u32>().into())
}

/// Writes and prints a report, and says whether its verdict is PASS.
fn show(report: &Report, folder: &Path) -> anyhow::Result<bool> {
    report.write(folder)?;
    let mut out = stdout().lock();
    writeln!(out, "The page with the plots: {}\n", folder.join("report.html").display())?;
    report.print(&mut out)?;
    Ok(report.verdict.passed)
}
