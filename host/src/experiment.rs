//! Experiments: one per claim of Semel's, run by `semel experiment NAME` against a host in a process of its own.
//!
//! Each puts a question, breaks something on purpose and measures from outside, over HTTP and by files that the
//! host under test cannot take back. It ends in a [`Report`]: a verdict with every check behind it, figures, plots,
//! and what somebody else needs to run it again. A fault that never fired is a failed experiment, not a lucky one.

use std::time::{Duration, Instant};

use serde::Serialize;

pub mod client;
pub mod host;
pub mod proxy;
mod armed;
mod place;
mod reader;
mod receiver;
mod server;
pub mod services;
pub mod steps;
mod witness;
mod stage;
pub mod counter;
pub mod crash_matrix;
pub mod failures;
pub mod fuel;
pub mod timeouts;
pub mod publish;
pub mod email;
pub mod outbox;
pub mod matrix;
pub mod plot;
pub mod report;

pub(crate) use place::{Place, check_built};

/// Takes one line about how far an experiment is, about once a second.
pub type Notify<'a> = &'a (dyn Fn(&str) + Send + Sync);

/// What an experiment found, in the order in which people read it.
#[derive(Debug, Serialize)]
pub struct Report {
    /// The experiment's name on the command line.
    pub experiment: &'static str,
    /// One line that says what was put to the test.
    pub title: String,
    /// What the experiment asks, and how it goes about it.
    pub method: String,
    /// The answer.
    pub verdict: Verdict,
    /// What was counted and measured.
    pub figures: Vec<Figure>,
    /// What is better seen than said.
    pub plots: Vec<plot::Plot>,
    /// Details in rows, such as every single kill.
    pub tables: Vec<Table>,
    /// Where and with what it ran.
    pub environment: Environment,
}

/// Passed only if every check did.
#[derive(Debug, Serialize)]
pub struct Verdict {
    /// Whether every check passed.
    pub passed: bool,
    /// One sentence: what was shown, or which checks failed and why.
    pub summary: String,
    /// Everything that was looked at.
    pub checks: Vec<Check>,
}

impl Verdict {
    /// Judges by the checks alone. `shown` is the sentence for a pass; a failure speaks for itself.
    #[must_use]
    pub fn of(checks: Vec<Check>, shown: String) -> Self {
        let reasons: Vec<String> = checks.iter().filter(|check| !check.passed).map(Check::reason).collect();
        let passed = reasons.is_empty();
        Self { passed, summary: if passed { shown } else { reasons.join("; ") }, checks }
    }
}

/// One thing that must hold.
#[derive(Debug, Serialize)]
pub struct Check {
    /// What must hold, in words.
    pub claim: String,
    /// What that means in this run.
    pub expected: String,
    /// What was found.
    pub found: String,
    /// Whether it held.
    pub passed: bool,
}

impl Check {
    /// A check with everything said about it.
    #[must_use]
    pub fn new(claim: impl Into<String>, passed: bool, expected: impl Into<String>, found: impl Into<String>) -> Self {
        Self { claim: claim.into(), expected: expected.into(), found: found.into(), passed }
    }

    /// A check that holds if the two are equal.
    #[must_use]
    pub fn equal(claim: impl Into<String>, expected: u64, found: u64) -> Self {
        Self::new(claim, expected == found, report::grouped(expected), report::grouped(found))
    }

    fn reason(&self) -> String {
        format!("{}: expected {}, found {}", self.claim, self.expected, self.found)
    }
}

/// One number with its name.
#[derive(Debug, Serialize)]
pub struct Figure {
    /// What was counted or measured.
    pub name: &'static str,
    /// How much of it.
    pub value: Quantity,
    /// In what; empty for plain counts.
    pub unit: &'static str,
}

impl Figure {
    /// A number of things.
    #[must_use]
    pub fn count(name: &'static str, value: u64) -> Self {
        Self { name, value: Quantity::Count(value), unit: "" }
    }

    /// A measured number.
    #[must_use]
    pub fn measure(name: &'static str, value: f64, unit: &'static str) -> Self {
        Self { name, value: Quantity::Measure(value), unit }
    }
}

/// Counts are exact, measurements are not; a reader of the JSON sees which is which.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(untagged)]
pub enum Quantity {
    /// Counted.
    Count(u64),
    /// Measured.
    Measure(f64),
}

/// Rows under headings.
#[derive(Debug, Serialize)]
pub struct Table {
    /// What the rows are.
    pub title: String,
    /// One heading per column.
    pub columns: Vec<&'static str>,
    /// As many cells as there are columns in each.
    pub rows: Vec<Vec<String>>,
}

/// What somebody else needs to run the experiment again, and to judge its rates.
#[derive(Debug, Clone, Serialize)]
pub struct Environment {
    /// What `--seed` repeats.
    pub seed: u64,
    /// Semel's version.
    pub version: &'static str,
    /// The commit it was built from, where the build said so.
    pub commit: Option<&'static str>,
    /// Whether this is a debug or a release build: rates of the two cannot be compared.
    pub build: &'static str,
    /// The operating system's name and its kernel.
    pub system: String,
    /// Processors that this process may use.
    pub processors: usize,
    /// The database's kind. Never its address, which may hold a password.
    pub database: String,
    /// When it began, by the wall clock of the machine.
    pub started_at: String,
    /// How long it took.
    pub seconds: f64,
    #[serde(skip)]
    began: Instant,
}

impl Environment {
    /// Looks around, and starts the stop watch.
    #[must_use]
    pub fn observe(seed: u64, database: &str) -> Self {
        let kind = database.split_once(':').map_or("file", |(scheme, _)| scheme);
        Self {
            seed,
            version: env!("CARGO_PKG_VERSION"),
            commit: option_env!("SEMEL_COMMIT"),
            build: if cfg!(debug_assertions) { "debug" } else { "release" },
            system: system(),
            processors: std::thread::available_parallelism().map_or(1, usize::from),
            database: kind.to_owned(),
            started_at: format!("{:.0}", jiff::Timestamp::now()),
            seconds: 0.0,
            began: Instant::now(),
        }
    }

    /// Stops the watch.
    #[must_use]
    pub fn finished(mut self) -> Self {
        self.finish();
        self
    }

    /// The same.
    pub(crate) fn finish(&mut self) {
        self.seconds = rounded(self.began.elapsed());
    }
}

/// Seconds to the millisecond: more digits than that are noise here.
fn rounded(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1000.0).round() / 1000.0
}

fn system() -> String {
    let release = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    let pretty = release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    let name = pretty.map_or(std::env::consts::OS, |name| name.trim_matches('"'));
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("{name}, kernel {}, {}", kernel.trim(), std::env::consts::ARCH)
}
