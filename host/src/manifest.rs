//! `function.toml`: what a deployment asks for.
//!
//! Everything is checked when the manifest is read: unknown keys, units, and limits that contradict each other are
//! refused with the line and the key, before anything of a deployment is stored.

use std::num::NonZeroU32;
use std::time::Duration;

use serde::Deserialize;
use toml::Spanned;

use crate::flow::Rate;
use crate::message::Contract;

mod check;
mod cron;
mod units;

pub use check::UNSAFE_LEASES;
pub(crate) use check::check_name;
pub use cron::{Cron, Missed};
pub use units::{Bytes, Span, parse_span};
use units::{rate, span};

/// Time between the end of the hard timeout and the end of the lease that is kept free for the commit.
pub const COMMIT_MARGIN: Duration = Duration::from_secs(1);

/// A manifest as it was read and checked.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// The name under which the function is deployed.
    pub name: String,
    /// File name of the component beside the manifest.
    #[serde(default)]
    pub component: Option<String>,
    /// `finish-once` or `begin-once`.
    #[serde(default)]
    pub contract: Contract,
    /// Whose tables it uses.
    #[serde(default = "default_app")]
    pub app: String,
    /// What it is called for.
    #[serde(default)]
    pub trigger: Trigger,
    /// What one attempt may use.
    #[serde(default)]
    pub limits: Limits,
    /// How failures are repeated.
    #[serde(default)]
    pub retry: Retry,
    /// How many run at once.
    #[serde(default)]
    pub flow: Flow,
    /// What it may reach.
    #[serde(default)]
    pub grants: Grants,
    /// How long an idempotency key is remembered.
    #[serde(default)]
    pub idempotency: Idempotency,
}

/// `[trigger]`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Trigger {
    /// Routes beside `/fn/NAME`.
    pub http: Vec<Route>,
    /// Topics it subscribes to.
    pub topics: Vec<String>,
    /// Schedules.
    pub cron: Vec<Cron>,
}

/// One route of `[trigger] http`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// A path with parameters in braces, `/count/{counter}`.
    pub path: String,
    /// Methods that are accepted; `POST` if none is named.
    #[serde(default = "default_methods")]
    pub methods: Vec<String>,
}

/// `[limits]`
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Instructions, roughly; none is no limit. Fuel used is always measured.
    pub fuel: Option<u64>,
    /// Hard timeout of one attempt.
    pub timeout: Spanned<Span>,
    /// Visibility timeout: a dead host's work is taken over after it.
    pub lease: Spanned<Span>,
    /// Linear memory of one instance.
    pub memory: Bytes,
    /// SQL statements in one attempt.
    pub statements: u32,
    /// Rows that one query may return.
    pub rows: u32,
}

/// `[retry]`
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Retry {
    /// Attempts before a message is dead.
    pub max_attempts: Spanned<u32>,
    /// Time between attempts.
    pub backoff: Spanned<Backoff>,
}

/// `[retry] backoff`
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Backoff {
    /// After the first attempt.
    #[serde(deserialize_with = "span")]
    pub initial: Duration,
    /// Growth with each attempt.
    pub factor: f64,
    /// Longest wait.
    #[serde(deserialize_with = "span")]
    pub max: Duration,
    /// Share of the wait that is random, 0 to 1.
    pub jitter: f64,
}

/// `[flow]`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Flow {
    /// Runs at once, over all hosts.
    pub concurrency: Option<Spanned<NonZeroU32>>,
    /// Starts per time, over all hosts: `100/s`, `10/m`.
    #[serde(deserialize_with = "rate")]
    pub rate: Option<Rate>,
    /// `serial`: messages of one group run one after another.
    pub group: Option<Grouping>,
    /// Whether messages may share a commit.
    pub batch: Option<Batching>,
    /// Most messages in the queue; one more is answered 429.
    pub backlog: Option<Spanned<NonZeroU32>>,
}

/// `[flow] group`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Grouping {
    /// One after another, in the order of acceptance.
    Serial,
}

/// `[flow] batch`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Batching {
    /// Where the label allows it.
    Auto,
    /// Never.
    Off,
}

/// `[grants]`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Grants {
    /// Topics it may publish to.
    pub topics: Vec<String>,
    /// Hosts it may call.
    pub http: Vec<String>,
    /// What its clocks show.
    pub clock: Clock,
}

/// `[grants] clock`
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Clock {
    /// The time of acceptance, equal on every attempt.
    #[default]
    Pinned,
    /// The time that it is.
    Real,
}

/// `[idempotency]`
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Idempotency {
    /// When a key may be used again.
    pub policy: KeyPolicy,
    /// How long `window` remembers.
    pub window: Span,
}

/// `[idempotency] policy`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KeyPolicy {
    /// After the window.
    Window,
    /// As soon as its message is settled.
    WhileActive,
    /// Never.
    Forever,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            fuel: None,
            timeout: Spanned::new(0..0, Span(Duration::from_secs(5))),
            lease: Spanned::new(0..0, Span(Duration::from_secs(10))),
            memory: Bytes(64 << 20),
            statements: 1000,
            rows: 10_000,
        }
    }
}

impl Default for Retry {
    fn default() -> Self {
        Self { max_attempts: Spanned::new(0..0, 5), backoff: Spanned::new(0..0, Backoff::default()) }
    }
}

impl Default for Backoff {
    fn default() -> Self {
        Self { initial: Duration::from_secs(1), factor: 2.0, max: Duration::from_secs(300), jitter: 0.5 }
    }
}

impl Default for Idempotency {
    fn default() -> Self {
        Self { policy: KeyPolicy::Window, window: Span(Duration::from_secs(24 * 3600)) }
    }
}

fn default_app() -> String {
    "app".into()
}

fn default_methods() -> Vec<String> {
    vec!["POST".into()]
}

impl Manifest {
    /// Reads and checks the text of a `function.toml`.
    ///
    /// # Errors
    /// The message names the line, the key, and what to write instead.
    pub fn parse(text: &str) -> Result<Self, String> {
        let manifest = Self::read(text)?;
        manifest.check(text)?;
        Ok(manifest)
    }

    /// Reads it, and leaves it to the host whether what it says can be kept.
    ///
    /// # Errors
    /// If it has not the shape of a manifest.
    pub fn read(text: &str) -> Result<Self, String> {
        toml::from_str(text).map_err(|e| format!("function.toml: {}", e.to_string().trim_end()))
    }

    /// A manifest for a component that came without one.
    ///
    /// # Errors
    /// If the name is none.
    pub fn bare(name: &str) -> Result<Self, String> {
        Self::parse(&format!("name = {}", toml::Value::String(name.into())))
    }

    /// Hard timeout of one attempt.
    #[must_use]
    pub fn timeout(&self) -> Duration {
        self.limits.timeout.get_ref().0
    }

    /// Visibility timeout.
    #[must_use]
    pub fn lease(&self) -> Duration {
        self.limits.lease.get_ref().0
    }

    /// How often it is tried: of a begin-once function only what never began is tried again.
    #[must_use]
    pub fn max_attempts(&self) -> u32 {
        *self.retry.max_attempts.get_ref()
    }

    /// Whether messages of one group run one after another.
    #[must_use]
    pub fn is_serial(&self) -> bool {
        self.flow.group == Some(Grouping::Serial)
    }

    /// Whether it may call other servers.
    #[must_use]
    pub fn calls(&self) -> bool {
        !self.grants.http.is_empty()
    }

    /// Runs at once.
    #[must_use]
    pub fn concurrency(&self) -> u32 {
        self.flow.concurrency.as_ref().map_or(u32::MAX, |most| most.get_ref().get())
    }

    /// Most messages in the queue.
    #[must_use]
    pub fn backlog(&self) -> Option<u32> {
        self.flow.backlog.as_ref().map(|most| most.get_ref().get())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_with_line_and_key() {
        let refused = |text: &str| Manifest::parse(text).expect_err(text);
        assert!(refused("name = \"a\"\n[limits]\ntimeut = \"2s\"").contains("line 3"));
        assert!(refused("name = \"a\"\n[limits]\ntimeut = \"2s\"").contains("timeut"));
        assert!(refused("name = \"a\"\n[limits]\ntimeout = \"2 parsecs\"").contains("line 3"));
        assert!(refused("name = \"a\"\n[limits]\nlease = \"5s\"\ntimeout = \"4500ms\"").contains("line 4"));
        assert!(refused("name = \"a\"\n[limits]\nmemory = \"64\"").contains("64MiB"));
        assert!(refused("name = \"a\"\n[retry]\nmax_attempts = 0").contains("line 3"));
        assert!(refused("name = \"A/../b\"").contains("lower-case"));
        assert!(refused("contract = \"finish-once\"").contains("name"));
    }

    #[test]
    fn reads_flow() {
        let flow = |text: &str| Manifest::parse(&format!("name = \"a\"\n[flow]\n{text}"));
        let read = flow("rate = \"10/m\"\ngroup = \"serial\"\nbacklog = 5").expect("a manifest");
        assert_eq!(read.flow.rate.map(|rate| rate.every), Some(6_000_000));
        assert_eq!((read.is_serial(), read.backlog(), read.concurrency()), (true, Some(5), u32::MAX));
        for wrong in [
            "rate = \"10\"",
            "rate = \"0/s\"",
            "rate = \"-1/s\"",
            "rate = \"10/fortnight\"",
            "rate = \"9999999999/s\"",
            "group = \"random\"",
            "concurrency = 0",
            "backlog = 0",
            "batch = \"maybe\"",
        ] {
            assert!(flow(wrong).expect_err(wrong).contains("line 3"), "{wrong}");
        }
    }

    #[test]
    fn refuses_what_it_could_only_ignore() {
        assert!(Manifest::parse("name = \"a\"\n[grants]\nclock = \"fast\"").expect_err("clock").contains("line 3"));
    }
}
