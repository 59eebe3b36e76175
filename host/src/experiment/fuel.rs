//! Fuel: is what a run uses decided by its message alone, and what a budget does to it by the budget alone?
//!
//! Method: a function does a given amount of arithmetic, of SQL, of calls of the host, or of all three, and then fails, so that each
//! message is tried again and again. In the middle of it the host is stopped and another process takes its place (on a database
//! that hosts share, two are at work from the start). Then the same work, to be done well, is given budgets of half of what
//! it needs to twice as much.
//! How to read it: a message uses the same fuel, to the unit, on every attempt and on every host, and so do all messages
//! with the same body; its wall time is another one each time. So a budget lets a message through always or never, and
//! another attempt changes nothing. Nobody can say that of a deadline.

use std::path::PathBuf;

use anyhow::Context as _;
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::place::check_built;
use super::reader::{self, READER};
use super::stage::Stage;
use super::{Environment, Notify, Report};

mod verdict;
mod findings;

const FUNCTION: &str = "effort";
/// `effort` without a budget, tried again a few times.
const STEADY: &str = "steady";
/// Budgets, in hundredths of what the work needs. wasmtime looks at the fuel at loops and calls: a budget of exactly what is needed
/// would say more about where it looks than about the work.
const BUDGETS: [u64; 4] = [50, 90, 101, 200];
/// Of a message with a budget.
const TRIES: u32 = 3;
const LOOK_EVERY: std::time::Duration = std::time::Duration::from_millis(20);
const STUCK_AFTER: std::time::Duration = std::time::Duration::from_secs(60);

/// What to do.
#[derive(Debug, Clone)]
pub struct Options {
    /// The host's binary, if it is not the running program.
    pub program: Option<PathBuf>,
    /// An empty database; without one, a fresh file in the output folder.
    pub database: Option<String>,
    /// Repeats the amounts of work.
    pub seed: u64,
    /// Where the report goes, and what the run leaves behind.
    pub out: PathBuf,
    /// Messages of each kind, and for each budget.
    pub messages: u64,
    /// Attempts at each message without a budget.
    pub attempts: u32,
    /// Where `make guests` put the functions.
    pub functions: PathBuf,
}

/// One kind of work, and what was seen of it.
pub(super) struct Kind {
    name: &'static str,
    order: Value,
    /// Of a run that ended well, without a budget.
    need: u64,
    /// Runs without a budget.
    runs: Vec<Run>,
    /// Messages by budget, in the order of `BUDGETS`, with the outcome of each of their attempts.
    budgets: Vec<Vec<Vec<String>>>,
}

/// One attempt that was metered.
#[derive(Debug, Clone)]
pub(super) struct Run {
    message: String,
    host: String,
    fuel: Option<u64>,
    micros: u64,
}

/// Everything that a verdict and a report are made of.
pub(super) struct Evidence {
    kinds: Vec<Kind>,
    /// Messages that ended well, and the rows that all messages left.
    completed: u64,
    rows: u64,
}

/// Runs the experiment. The report is the caller's to write and print.
///
/// # Errors
/// If the experiment could not be carried out. A broken promise is not an error, but a verdict.
pub async fn run(options: &Options, notify: Notify<'_>) -> anyhow::Result<Report> {
    check_built(&options.functions, &[FUNCTION, READER])?;
    let mut stage = Stage::take(&options.out, options.database.as_deref(), options.program.as_deref())?;
    let environment = Environment::observe(options.seed, stage.database());
    stage.start(&[]).await?;
    deploy_steady(&stage, options).await?;
    if stage.is_shared() {
        stage.start(&[]).await?;
    }
    let mut kinds = kinds(&mut ChaCha8Rng::seed_from_u64(options.seed));
    notify("the same messages again and again, on more than one host");
    run_unlimited(&mut stage, options, &mut kinds).await?;
    notify("the same work with budgets");
    let mut completed = kinds.len() as u64;
    completed += run_budgets(&mut stage, options, &mut kinds).await?;
    let rows = reader::number(&stage.client()?, "SELECT COUNT(*) FROM efforts", &[]).await?;
    stage.kill().await?;
    Ok(findings::report(options, &Evidence { kinds, completed, rows }, environment.finished()))
}

/// Four kinds, each a little more or less by chance.
fn kinds(random: &mut ChaCha8Rng) -> Vec<Kind> {
    let mut about = |amount: u64| random.random_range(amount..amount + amount / 4);
    let orders = [
        ("arithmetic", json!({ "compute": about(400_000) })),
        ("calls", json!({ "calls": about(2_000) })),
        ("sql", json!({ "statements": about(200) })),
        ("all", json!({ "compute": about(100_000), "calls": about(500), "statements": about(50) })),
    ];
    let kind = |(name, order)| Kind { name, order, need: 0, runs: Vec::new(), budgets: Vec::new() };
    orders.into_iter().map(kind).collect()
}

async fn deploy_steady(stage: &Stage, options: &Options) -> anyhow::Result<()> {
    let (client, function) = (stage.client()?, options.functions.join(FUNCTION));
    client.deploy(&function, None).await?;
    client.deploy(&options.functions.join(READER), None).await?;
    // Slow enough for another host to take its part.
    let retry =
        format!("max_attempts = {}\nbackoff = {{ initial = \"300ms\", factor = 1.0, jitter = 0.0 }}", options.attempts);
    let steady = stage.place.function(STEADY, &function, &format!("[retry]\n{retry}"))?;
    client.deploy(&steady, None).await
}

/// Each kind once well, and then so often that it fails, over a change of hosts.
async fn run_unlimited(stage: &mut Stage, options: &Options, kinds: &mut [Kind]) -> anyhow::Result<()> {
    let mut well = Vec::new();
    for kind in kinds.iter() {
        well.push(stage.send(STEADY, &kind.order.to_string()).await?);
    }
    stage.until_settled().await?;
    let mut sent = Vec::new();
    for (number, kind) in kinds.iter().enumerate() {
        let mut order = kind.order.clone();
        order["fail"] = json!(true);
        for _ in 0..options.messages {
            sent.push((number, stage.send(STEADY, &order.to_string()).await?));
        }
    }
    let before = well.len() as u64;
    until_attempts(stage, before + 2 * sent.len() as u64).await?;
    let first = stage.hosts.first_mut().context("there is no host")?;
    first.stop().await?;
    first.restart().await?;
    stage.until_settled().await?;
    let client = stage.client()?;
    for (kind, id) in kinds.iter_mut().zip(&well) {
        let attempts = client.attempts(id).await?;
        kind.need = attempts.first().and_then(|attempt| attempt.fuel).context("a run ended well without its fuel")?;
    }
    for (number, id) in sent {
        for attempt in client.attempts(&id).await? {
            let span = attempt.started_at.zip(attempt.ended_at).map(|(from, to)| to.since(from));
            let micros = span.map_or(0, |span| u64::try_from(span.as_micros()).unwrap_or(u64::MAX));
            let run = Run { message: id.clone(), host: attempt.host, fuel: attempt.fuel, micros };
            kinds[number].runs.push(run);
        }
    }
    Ok(())
}

async fn until_attempts(stage: &Stage, wanted: u64) -> anyhow::Result<()> {
    let (client, began) = (stage.client()?, Instant::now());
    while client.counts(STEADY).await?.attempts < wanted {
        anyhow::ensure!(began.elapsed() < STUCK_AFTER, "messages that fail are not tried again");
        sleep(LOOK_EVERY).await;
    }
    Ok(())
}

/// Says how many messages ended well.
async fn run_budgets(stage: &mut Stage, options: &Options, kinds: &mut [Kind]) -> anyhow::Result<u64> {
    let function = options.functions.join(FUNCTION);
    let mut sent = Vec::new();
    for (number, kind) in kinds.iter_mut().enumerate() {
        kind.budgets = vec![Vec::new(); BUDGETS.len()];
        for (place, budget) in BUDGETS.into_iter().enumerate() {
            let name = format!("{}-{budget}", kind.name);
            let lines = format!(
                "[limits]\nfuel = {}\n[retry]\nmax_attempts = {TRIES}\nbackoff = {{ initial = \"20ms\", factor = 1.0 }}",
                kind.need * budget / 100
            );
            stage.client()?.deploy(&stage.place.function(&name, &function, &lines)?, None).await?;
            for _ in 0..options.messages {
                sent.push((number, place, stage.send(&name, &kind.order.to_string()).await?));
            }
        }
    }
    stage.until_settled().await?;
    let client = stage.client()?;
    let mut completed = 0;
    for (number, place, id) in sent {
        let outcomes: Vec<String> = client.attempts(&id).await?.into_iter().map(|attempt| attempt.outcome).collect();
        completed += u64::from(outcomes.last().is_some_and(|outcome| outcome == "completed"));
        kinds[number].budgets[place].push(outcomes);
    }
    Ok(completed)
}
