//! `semel experiment NAME`: puts one of Semel's claims to the test, against a host of its own.
//!
//! The table and the verdict go to standard output, one line a second on progress to standard error, the JSON and
//! the page with plots to `--out`. Exit code 0 is a verdict of PASS, and nothing else is.

use std::io::{Write as _, stdout};
use std::path::PathBuf;

use clap::{Args, Subcommand};
use tokio::signal::unix::{SignalKind, signal};

use crate::experiment::counter::{self, Options};
use crate::message::Contract;

/// Put one of Semel's claims to the test
#[derive(Debug, Args)]
pub(crate) struct Experiment {
    #[command(subcommand)]
    which: Which,
}

#[derive(Debug, Subcommand)]
enum Which {
    Counter(Counter),
}

/// Count requests while the host is killed all the time: the count must be exact
#[derive(Debug, Args)]
struct Counter {
    /// A database without messages of `counter` [default: a fresh file in the output folder]
    #[arg(long, value_name = "URL")]
    database: Option<String>,
    /// Repeats the intervals between the kills [default: random]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Where the report goes
    #[arg(long, value_name = "DIR", default_value = "target/experiments/counter")]
    out: PathBuf,
    /// Requests to send
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..))]
    messages: u64,
    /// Kills that must hit running work [default: one per 500 messages, 1 to 20]
    #[arg(long, value_name = "K")]
    kills: Option<u64>,
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

impl Experiment {
    /// Runs it, and says whether the verdict is PASS.
    pub(crate) async fn execute(self) -> anyhow::Result<bool> {
        // A host that outlives its experiment would hold the database: being told to end must drop it first.
        let mut terminate = signal(SignalKind::terminate())?;
        tokio::select! {
            verdict = async { match self.which { Which::Counter(counter) => counter.execute().await } } => verdict,
            _ = tokio::signal::ctrl_c() => anyhow::bail!("interrupted"),
            _ = terminate.recv() => anyhow::bail!("told to end"),
        }
    }
}

impl Counter {
    async fn execute(self) -> anyhow::Result<bool> {
        let options = Options {
            program: None,
            database: self.database,
            seed: self.seed.unwrap_or_else(|| rand::random::<u32>().into()),
            out: self.out,
            messages: self.messages,
            kills: self.kills.unwrap_or_else(|| Options::kills_for(self.messages)),
            functions: self.functions,
            contract: self.contract,
            clients: self.clients,
        };
        let report = counter::run(&options, &|line| eprintln!("{line}")).await?;
        report.write(&options.out)?;
        let mut out = stdout().lock();
        writeln!(out, "The page with the plots: {}\n", options.out.join("report.html").display())?;
        report.print(&mut out)?;
        Ok(report.verdict.passed)
    }
}
