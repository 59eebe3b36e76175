//! Hosts that die at every step of a message: which effects happen once, which twice, and which never?
//!
//! Method: a message to `effects` does one effect of every class. For each crash point of the code, under each contract
//! and on each kind of database, a host of its own is killed there (or stands still for two leases, or loses its power,
//! its database, or one answer of it), starts again, and goes on until nothing is left to do. Then each effect is counted:
//! rows, state, receipts and answers in the database, requests at a server in this process. How to read it: a row is a
//! moment, a column an effect under a contract, a cell how often it happened. The same is done to a message in the middle of
//! several that share a commit: what it and the others did is committed once, together or alone. What must not happen is an effect of the
//! transaction that happened twice, or not at all where the message is completed. What must happen somewhere, or the run has shown
//! nothing, is an outside call that happened twice under finish-once, and one that never did under begin-once.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, ensure};
use rand::SeedableRng as _;
use rand::seq::SliceRandom as _;
use rand_chacha::ChaCha8Rng;
use tokio::task::JoinSet;

use self::cells::Cell;
use self::stage::Stage;
use self::trial::Outcome;
use super::place::{Place, check_built};
use super::receiver::Receiver;
use super::server::Server;
use super::{Environment, Notify, Report};
use crate::message::Contract;
use crate::store;

mod cells;
mod stage;
mod trial;
mod batch;
mod measure;
mod allowed;
mod verdict;
mod findings;

const FUNCTION: &str = "effects";
/// Takes what is published.
const RECEIPTS: &str = "receipts";
/// Cells on files that are tried at the same time, each with a file and a host of its own.
const AT_ONCE: usize = 3;

/// What to do.
#[derive(Debug, Clone)]
pub struct Options {
    /// The host's binary, if it is not the running program.
    pub program: Option<PathBuf>,
    /// A database of a server that nobody else uses, to do the same there; files are tried in any case.
    pub database: Option<String>,
    /// Repeats the order of the cells.
    pub seed: u64,
    /// Where the report goes, and what the run leaves behind.
    pub out: PathBuf,
    /// Where `make guests` put the functions.
    pub functions: PathBuf,
    /// Only a few cells of each kind.
    pub reduced: bool,
}

/// Runs the experiment. The report is the caller's to write and print.
///
/// # Errors
/// If the experiment could not be carried out. A broken promise is not an error, but a verdict.
pub async fn run(options: &Options, notify: Notify<'_>) -> anyhow::Result<Report> {
    check_built(&options.functions, &[FUNCTION, RECEIPTS])?;
    let place = Place::take(&options.out)?;
    let receiver = Arc::new(Receiver::start().await?);
    let mut environment = Environment::observe(options.seed, &place.database("files"));
    let mut random = ChaCha8Rng::seed_from_u64(options.seed);
    let mut cells = cells::all(false, options.reduced);
    cells.shuffle(&mut random);
    let queue = Arc::new(Mutex::new(VecDeque::from(cells)));
    let mut lanes = JoinSet::new();
    let (tell, told) = tokio::sync::mpsc::unbounded_channel();
    let stage = Stage::on_files(options, &place, Arc::clone(&receiver)).await?;
    for _ in 0..AT_ONCE {
        lanes.spawn(lane(stage.clone(), Arc::clone(&queue), tell.clone()));
    }
    if let Some(database) = &options.database {
        ensure!(store::is_shared(database), "--database names the database of a server; files are tried in any case");
        environment.database = format!("{} and {}", environment.database, Environment::observe(0, database).database);
        let server = Server::find(database, place.folder().join("server.log"));
        let server = if options.reduced { None } else { Some(server.context("the database's server must be killed")?) };
        let mut cells = cells::all(true, options.reduced);
        cells.shuffle(&mut random);
        // One database: it is deployed to once for each contract.
        cells.sort_by_key(|cell| cell.contract == Contract::FinishOnce);
        let stage = Stage::on_server(options, &place, receiver, database.clone(), server).await?;
        lanes.spawn(lane(stage, Arc::new(Mutex::new(cells.into())), tell.clone()));
    }
    drop(tell);
    let outcomes = collect(told, &queue, notify).await;
    while let Some(ended) = lanes.join_next().await {
        ended.context("a lane of the experiment failed")?;
    }
    Ok(findings::report(options, &outcomes, environment.finished()))
}

type Queue = Arc<Mutex<VecDeque<Cell>>>;
type Tell = tokio::sync::mpsc::UnboundedSender<Outcome>;

/// Tries one cell after another.
async fn lane(mut stage: Stage, queue: Queue, tell: Tell) {
    loop {
        let next = queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        let Some(cell) = next else { return };
        let outcome = trial::run(&mut stage, cell).await;
        if tell.send(outcome).is_err() {
            return;
        }
    }
}

async fn collect(
    mut told: tokio::sync::mpsc::UnboundedReceiver<Outcome>,
    queue: &Queue,
    notify: Notify<'_>,
) -> Vec<Outcome> {
    let mut outcomes = Vec::new();
    while let Some(outcome) = told.recv().await {
        let left = queue.lock().unwrap_or_else(PoisonError::into_inner).len();
        notify(&format!("{}; {left} more on files", outcome.line()));
        outcomes.push(outcome);
    }
    outcomes.sort_by_key(|outcome: &Outcome| outcome.cell.place());
    outcomes
}
