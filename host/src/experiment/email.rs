//! A mail: how many are sent when the process dies between any two steps?
//!
//! Method: the protocol of the essay "Why can't we have exactly-once message processing?" (lock, check, send, record, unlock) as a
//! function whose lock, record and provider are services out in the world, under both contracts; then the same mail by
//! `deferred-http`. The services crash the host: when a chosen step is asked for, or when it is done and before its answer leaves.
//! How to read it: the protocol sends twice (finish-once) or not at all (begin-once), at the place that the essay names. A deferred
//! request is never lost and never sent without its commit; whether a second try is a second mail is up to the provider.

use std::time::Duration;

use anyhow::Context as _;
use serde_json::json;

use self::trials::{Trial, Way};
use super::place::check_built;
use super::services::Services;
use super::stage::Stage;
use super::steps::{self, Ended};
use super::{Environment, Notify, Report};
use crate::message::Contract;

pub mod trials;
mod verdict;
mod findings;

const POSTMAN: &str = "postman";
const POSTMAN_ONCE: &str = "postman-once";
const MAILER: &str = "mailer";
/// How long an orphaned lock is in the way.
const LOCKED: Duration = Duration::from_secs(1);

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
    /// Mails that were sent, as the provider counts.
    pub(super) mails: u64,
    /// Where the message ended, and how often it was tried.
    pub(super) state: String,
    pub(super) attempts: u64,
}

/// Runs the experiment. The report is the caller's to write and print.
///
/// # Errors
/// If the experiment could not be carried out. A broken promise is not an error, but a verdict.
pub async fn run(options: &Options, notify: Notify<'_>) -> anyhow::Result<Report> {
    check_built(&options.functions, &[POSTMAN, MAILER])?;
    let mut stage = Stage::take(&options.out, options.database.as_deref(), options.program.as_deref())?;
    let environment = Environment::observe(options.seed, stage.database());
    let services = Services::start().await?;
    stage.start(&[]).await?;
    deploy(&stage, options, &services).await?;
    let mut tried = Vec::new();
    for (number, trial) in options.trials.iter().enumerate() {
        notify(&format!("{} of {}: {}, {}", number + 1, options.trials.len(), trial.way.name(), trial.place()));
        tried.push(one(&mut stage, &services, *trial, number).await.with_context(|| format!("{trial:?}"))?);
    }
    stage.kill().await?;
    Ok(findings::report(&tried, environment.finished()))
}

async fn deploy(stage: &Stage, options: &Options, services: &Services) -> anyhow::Result<()> {
    let client = stage.client()?;
    let grants = format!("http = [\"http://{}\"]", services.address());
    // A database that hosts share takes work over when its lease ends, and not before.
    let tables = [("grants", grants.as_str()), ("limits", "timeout = \"3s\"\nlease = \"5s\"")];
    let postman = stage.place.variant(&options.functions.join(POSTMAN), &tables)?;
    client.deploy(&postman, None).await?;
    client.deploy_as(&postman, POSTMAN_ONCE, Some(Contract::BeginOnce.as_str())).await?;
    client.deploy(&stage.place.variant(&options.functions.join(MAILER), &tables)?, None).await
}

/// One message, one crash at most, and what there is to count afterwards.
async fn one(stage: &mut Stage, services: &Services, trial: Trial, number: usize) -> anyhow::Result<Tried> {
    let id = format!("mail-{number}");
    let server = services.address();
    let (function, order) = match trial.way {
        Way::Protocol | Way::BeginOnce => {
            let order = json!({ "server": server.to_string(), "id": id, "lock_millis": LOCKED.as_millis() });
            (if trial.way == Way::Protocol { POSTMAN } else { POSTMAN_ONCE }, order)
        }
        Way::Deferred => (MAILER, json!({ "to": "alice", "service": format!("http://{server}/counters/{id}") })),
        Way::Keyed => (MAILER, json!({ "to": "alice", "service": format!("http://{server}/mails/{id}") })),
    };
    let Ended { message, fired, asked } =
        steps::run(stage, services, trial.crash, function, &order.to_string()).await?;
    let mails = services.counter(&id);
    Ok(Tried { trial, fired, asked, mails, state: message.state, attempts: message.attempt })
}
