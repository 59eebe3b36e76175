//! Timeouts: why the hard timeout belongs below the lease, and what the heartbeat is good for.
//!
//! Method: one function for each combination of a lease and a hard timeout, also of those that a deploy refuses; to each go
//! messages whose first attempt takes less than both, more than one of them, or more than both, and whose second is quick. All
//! of it once with the heartbeat that renews leases, and once without.
//! How to read it: a claim is taken over while its run goes on only where the lease is shorter than the run *and* nobody renews
//! it. There the fence refuses the first run's commit: work that was done in vain. A hard timeout below the lease ends the run
//! first, with a name and on record, whoever renews what. However the times are chosen, each message's effect is there once.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::json;

use self::grid::Cell;
use super::place::check_built;
use super::reader::{self, READER};
use super::stage::Stage;
use super::{Environment, Notify, Report};

mod grid;
mod verdict;
mod findings;

const FUNCTION: &str = "effort";
/// More than any cell needs.
const ATTEMPTS: u32 = 10;

/// What to do.
#[derive(Debug, Clone)]
pub struct Options {
    /// The host's binary, if it is not the running program.
    pub program: Option<PathBuf>,
    /// An empty database that two hosts share; without one, a fresh file in the output folder, with one host.
    pub database: Option<String>,
    /// Kept in the report. Nothing here is left to chance but the moments.
    pub seed: u64,
    /// Where the report goes, and what the run leaves behind.
    pub out: PathBuf,
    /// Messages of each cell.
    pub messages: u64,
    /// All spans of the grid are multiples of this.
    pub unit: Duration,
    /// Where `make guests` put the functions.
    pub functions: PathBuf,
}

/// A message of a cell, when all is over.
#[derive(Debug, Clone)]
pub(super) struct Ended {
    /// Index into the grid.
    pub(super) cell: usize,
    /// How its attempts ended, the first one first.
    pub(super) outcomes: Vec<String>,
    /// Rows that it left.
    pub(super) effects: u64,
}

/// Everything that a verdict and a report are made of.
struct Evidence {
    cells: Vec<Cell>,
    ended: Vec<Ended>,
    hosts: u64,
}

/// Runs the experiment. The report is the caller's to write and print.
///
/// # Errors
/// If the experiment could not be carried out. A broken promise is not an error, but a verdict.
pub async fn run(options: &Options, notify: Notify<'_>) -> anyhow::Result<Report> {
    check_built(&options.functions, &[FUNCTION, READER])?;
    let mut stage = Stage::take(&options.out, options.database.as_deref(), options.program.as_deref())?;
    let environment = Environment::observe(options.seed, stage.database());
    let hosts = if stage.is_shared() { 2 } else { 1 };
    let cells = grid::all(options.unit);
    let mut ended = Vec::new();
    for renewed in [true, false] {
        notify(if renewed { "leases are renewed" } else { "leases are not renewed" });
        let beat = OsString::from(if renewed { "0" } else { "1" });
        let variables = [("SEMEL_EXPERIMENT_UNSAFE_LEASES", "1".into()), ("SEMEL_EXPERIMENT_NO_HEARTBEAT", beat)];
        stage.start(&variables).await?;
        deploy(&stage, options, &cells).await?;
        for _ in 1..hosts {
            stage.start(&variables).await?;
        }
        ended.extend(run_cells(&mut stage, options, &cells, renewed).await?);
        stage.kill().await?;
    }
    Ok(findings::report(options, &Evidence { cells, ended, hosts }, environment.finished()))
}

async fn deploy(stage: &Stage, options: &Options, cells: &[Cell]) -> anyhow::Result<()> {
    let (client, function) = (stage.client()?, options.functions.join(FUNCTION));
    client.deploy(&function, None).await?;
    client.deploy(&options.functions.join(READER), None).await?;
    let mut names: Vec<&Cell> = cells.iter().collect();
    names.dedup_by_key(|cell| cell.function());
    for cell in names {
        let lines = format!(
            "[limits]\ntimeout = \"{}ms\"\nlease = \"{}ms\"\n[retry]\nmax_attempts = {ATTEMPTS}\n\
             backoff = {{ initial = \"20ms\", factor = 1.0 }}",
            cell.timeout.as_millis(),
            cell.lease.as_millis()
        );
        client.deploy(&stage.place.function(&cell.function(), &function, &lines)?, None).await?;
    }
    Ok(())
}

/// All cells at once: each message waits for its own time, and none of them computes.
async fn run_cells(stage: &mut Stage, options: &Options, cells: &[Cell], renewed: bool) -> anyhow::Result<Vec<Ended>> {
    let mut sent = Vec::new();
    for (number, cell) in cells.iter().enumerate().filter(|(_, cell)| cell.renewed == renewed) {
        let body = json!({ "millis": cell.run.as_millis() as u64, "slow_attempts": 1 }).to_string();
        for _ in 0..options.messages {
            sent.push((number, stage.send(&cell.function(), &body).await?));
        }
    }
    stage.until_settled().await?;
    let client = stage.client()?;
    let mut ended = Vec::new();
    for (cell, id) in sent {
        let outcomes = client.attempts(&id).await?.into_iter().map(|attempt| attempt.outcome).collect();
        let effects = reader::number(&client, "SELECT COUNT(*) FROM efforts WHERE message_id = $1", &[&id]).await?;
        ended.push(Ended { cell, outcomes, effects });
    }
    Ok(ended)
}
