//! A crash on one side of a step, for functions whose steps are requests to services out in the world.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use tokio::time::{sleep, timeout};

use super::client::Message;
use super::services::Services;
use super::stage::Stage;

/// A step that is not asked for by then never will be.
const FIRED_WITHIN: Duration = Duration::from_secs(30);
/// What is still on its way gets this long.
const AFTERWARDS: Duration = Duration::from_millis(500);

/// What to do.
#[derive(Debug, Clone)]
pub struct Options<Trial> {
    /// The host's binary, if it is not the running program.
    pub program: Option<PathBuf>,
    /// An empty database; without one, a fresh file in the output folder.
    pub database: Option<String>,
    /// Kept in the report: every trial is run, and nothing is left to chance.
    pub seed: u64,
    /// Where the report goes, and what the run leaves behind.
    pub out: PathBuf,
    /// What is tried, in this order.
    pub trials: Vec<Trial>,
    /// Where `make guests` put the functions.
    pub functions: PathBuf,
}

/// On which side of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// It was asked for, and is not done.
    Before,
    /// It is done, and nobody heard of it.
    After,
}

/// A crash of the host at the first attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Crash {
    /// Which step, from 1.
    pub step: u64,
    /// On which side of it.
    pub place: Place,
}

impl Crash {
    /// No crash, and one at each place that these steps have.
    pub(super) fn all(steps: &[&str]) -> impl Iterator<Item = Option<Self>> + use<> {
        let sides = |step| [Place::Before, Place::After].map(|place| Some(Self { step, place }));
        std::iter::once(None).chain((1..=steps.len() as u64).flat_map(sides))
    }

    /// How many steps are done by then.
    pub(super) fn done(self) -> u64 {
        if self.place == Place::After { self.step } else { self.step - 1 }
    }

    /// Where it crashes, in words.
    pub(super) fn says(crash: Option<Self>, steps: &[&str]) -> String {
        let Some(Self { step, place }) = crash else { return "no crash".to_owned() };
        let index = usize::try_from(step).unwrap_or(usize::MAX).wrapping_sub(1);
        let side = if place == Place::Before { "before" } else { "after" };
        format!("crash {side} {}", steps.get(index).copied().unwrap_or("nothing"))
    }
}

/// A message that is settled, or whatever became of it.
pub(super) struct Ended {
    pub(super) message: Message,
    /// Whether the host was killed where it was to be.
    pub(super) fired: bool,
    /// Steps that the services were asked for, over all attempts.
    pub(super) asked: u64,
}

/// One message, one crash at most, and the time until nothing more happens.
pub(super) async fn run(
    stage: &mut Stage,
    services: &Services,
    crash: Option<Crash>,
    function: &str,
    order: &str,
) -> anyhow::Result<Ended> {
    let mut crash = crash.map(|crash| services.arm(crash.step, crash.place == Place::After));
    let before = services.asked();
    let message = stage.send(function, order).await?;
    let mut fired = false;
    if let Some(crash) = &mut crash {
        fired = matches!(timeout(FIRED_WITHIN, crash).await, Ok(Ok(())));
        if fired {
            let host = stage.hosts.first_mut().context("there is no host")?;
            host.kill().await?;
            host.restart().await?;
        }
    }
    services.disarm();
    stage.until_settled().await?;
    sleep(AFTERWARDS).await;
    let message = stage.client()?.message(&message).await?;
    Ok(Ended { message, fired, asked: services.asked() - before })
}
