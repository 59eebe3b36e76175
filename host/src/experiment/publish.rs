//! Write, then publish: how often is the message published when the process dies between any two steps?
//!
//! Method: the sequences of the essay "Why can't we have exactly-once message processing?", as one function whose database and
//! broker are services out in the world. The experiment runs both itself, and they crash the host: when a chosen step is asked for,
//! or when it is done and before its answer leaves, the host gets SIGKILL. It is started again, the message is delivered again,
//! and the broker counts. Then the same with the transaction of the message and `outbox`.
//! How to read it: each of the first three has a place where the message is published 0 times or twice, and it is the one that
//! the essay names. The last one has none: write, publication and acknowledgement are one commit.

use anyhow::Context as _;
use serde_json::json;

use self::trials::{Trial, Variant};
use super::place::check_built;
use super::reader::{self, READER};
use super::services::Services;
use super::stage::Stage;
use super::steps::{self, Ended};
use super::{Environment, Notify, Report};

pub mod trials;
mod verdict;
mod findings;

const FUNCTION: &str = "publisher";
/// Subscribes to what `publisher` publishes, and counts it.
const SUBSCRIBER: &str = "counter";
/// What to do.
pub type Options = steps::Options<Trial>;

/// A trial, when all is over.
#[derive(Debug, Clone)]
pub(super) struct Tried {
    pub(super) trial: Trial,
    /// Whether the host was killed where it was to be.
    pub(super) fired: bool,
    /// Steps that the services were asked for, over all attempts.
    pub(super) asked: u64,
    /// How often the message was published, as the broker counts.
    pub(super) published: u64,
    /// Rows that were written.
    pub(super) written: u64,
    /// Where the message ended, and how often it was tried.
    pub(super) state: String,
    pub(super) attempts: u64,
}

/// Runs the experiment. The report is the caller's to write and print.
///
/// # Errors
/// If the experiment could not be carried out. A broken promise is not an error, but a verdict.
pub async fn run(options: &Options, notify: Notify<'_>) -> anyhow::Result<Report> {
    check_built(&options.functions, &[FUNCTION, SUBSCRIBER, READER])?;
    let mut stage = Stage::take(&options.out, options.database.as_deref(), options.program.as_deref())?;
    let environment = Environment::observe(options.seed, stage.database());
    let services = Services::start().await?;
    stage.start(&[]).await?;
    deploy(&stage, options, &services).await?;
    let mut tried = Vec::new();
    for (number, trial) in options.trials.iter().enumerate() {
        notify(&format!("{} of {}: {}, {}", number + 1, options.trials.len(), trial.variant.name(), trial.place()));
        tried.push(one(&mut stage, &services, *trial, number).await.with_context(|| format!("{trial:?}"))?);
    }
    stage.kill().await?;
    Ok(findings::report(options, &tried, environment.finished()))
}

async fn deploy(stage: &Stage, options: &Options, services: &Services) -> anyhow::Result<()> {
    let client = stage.client()?;
    let subscriber =
        stage.place.variant(&options.functions.join(SUBSCRIBER), &[("trigger", "topics = [\"published\"]")])?;
    client.deploy(&subscriber, None).await?;
    client.deploy(&options.functions.join(READER), None).await?;
    let grants = format!("http = [\"http://{}\"]\ntopics = [\"published\"]", services.address());
    // A database that hosts share takes work over when its lease ends, and not before.
    let limits = "timeout = \"4s\"\nlease = \"6s\"";
    let retry = "max_attempts = 4\nbackoff = { initial = \"20ms\", factor = 1.0 }";
    let tables = [("grants", grants.as_str()), ("limits", limits), ("retry", retry)];
    client.deploy(&stage.place.variant(&options.functions.join(FUNCTION), &tables)?, None).await
}

/// One message, one crash at most, and what there is to count afterwards.
async fn one(stage: &mut Stage, services: &Services, trial: Trial, number: usize) -> anyhow::Result<Tried> {
    let id = format!("trial-{number}");
    let body = json!({ "variant": trial.variant.name(), "server": services.address().to_string(), "id": id });
    let Ended { message, fired, asked } = steps::run(stage, services, trial.crash, FUNCTION, &body.to_string()).await?;
    let client = stage.client()?;
    let (published, written) = match trial.variant {
        Variant::Outbox => (
            reader::number(&client, "SELECT n FROM counters WHERE id = $1", &[&id]).await?,
            reader::number(&client, "SELECT COUNT(*) FROM written WHERE id = $1", &[&id]).await?,
        ),
        _ => (services.counter(&format!("published-{id}")), u64::from(services.has_record(&format!("written-{id}")))),
    };
    Ok(Tried { trial, fired, asked, published, written, state: message.state, attempts: message.attempt })
}
