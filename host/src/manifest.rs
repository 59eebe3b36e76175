//! `function.toml`: what a deployment asks for.
//!
//! Everything is checked when the manifest is read: unknown keys, units, and limits that contradict each other are
//! refused with the line and the key, before anything of a deployment is stored.

use std::time::Duration;

use serde::Deserialize;
use toml::Spanned;

use crate::message::Contract;

mod units;

use units::span;
pub use units::{Bytes, Span, parse_span};

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

/// One schedule of `[trigger] cron`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cron {
    /// Five fields of cron.
    pub schedule: String,
    /// IANA time zone.
    #[serde(default)]
    pub timezone: Option<String>,
    /// Body of the message.
    #[serde(default)]
    pub body: String,
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
    /// Runs at once.
    pub concurrency: Option<Spanned<u32>>,
    /// Runs per time.
    pub rate: Option<String>,
    /// `serial`: messages of one group run one after another.
    pub group: Option<String>,
    /// `auto` or `off`.
    pub batch: Option<String>,
}

/// `[grants]`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Grants {
    /// Topics it may publish to.
    pub topics: Vec<String>,
    /// Hosts it may call.
    pub http: Vec<String>,
    /// `pinned` or `real`.
    pub clock: Option<String>,
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
        let manifest: Self =
            toml::from_str(text).map_err(|e| format!("function.toml: {}", e.to_string().trim_end()))?;
        manifest.check(text)?;
        Ok(manifest)
    }

    /// A manifest for a component that came without one.
    ///
    /// # Errors
    /// If the name is none.
    pub fn bare(name: &str) -> Result<Self, String> {
        Self::parse(&format!("name = {}", toml::Value::String(name.into())))
    }

    fn check(&self, text: &str) -> Result<(), String> {
        let at = |offset: usize| text.as_bytes()[..offset.min(text.len())].iter().filter(|b| **b == b'\n').count() + 1;
        let refuse = |offset: usize, what: String| Err(format!("function.toml, line {}: {what}", at(offset)));
        check_name("name", &self.name).map_err(|e| format!("function.toml: {e}"))?;
        check_name("app", &self.app).map_err(|e| format!("function.toml: {e}"))?;
        let (timeout, lease) = (&self.limits.timeout, &self.limits.lease);
        if self.timeout() < Duration::from_millis(10) {
            return refuse(timeout.span().start, "[limits] timeout must be at least 10ms".into());
        }
        if self.timeout() + COMMIT_MARGIN >= self.lease() {
            let at = timeout.span().start.max(lease.span().start);
            return refuse(
                at,
                format!(
                    "[limits] timeout ({:?}) + the commit margin ({COMMIT_MARGIN:?}) must be shorter than lease ({:?}), \
                     so that a run is over before its message can be taken over; lower timeout or raise lease",
                    self.timeout(),
                    self.lease()
                ),
            );
        }
        if self.limits.memory.0 < 1 << 16 {
            return Err("function.toml: [limits] memory must be at least 64KiB, one page".into());
        }
        if *self.retry.max_attempts.get_ref() == 0 {
            return refuse(self.retry.max_attempts.span().start, "[retry] max_attempts must be at least 1".into());
        }
        let backoff = self.retry.backoff.get_ref();
        if !(0.0..=1.0).contains(&backoff.jitter) || !(1.0..=1000.0).contains(&backoff.factor) {
            return refuse(
                self.retry.backoff.span().start,
                "[retry] backoff: jitter must be 0 to 1 and factor 1 to 1000".into(),
            );
        }
        if backoff.initial > backoff.max {
            return refuse(
                self.retry.backoff.span().start,
                "[retry] backoff: initial must not be longer than max".into(),
            );
        }
        if let Some(concurrency) = &self.flow.concurrency
            && *concurrency.get_ref() == 0
        {
            return refuse(concurrency.span().start, "[flow] concurrency must be at least 1".into());
        }
        if let Some(batch) = self.flow.batch.as_deref().filter(|batch| !["auto", "off"].contains(batch)) {
            return Err(format!("function.toml: [flow] batch = \"{batch}\": write \"auto\" or \"off\""));
        }
        if self.flow.batch.as_deref().is_some_and(|batch| !matches!(batch, "auto" | "off")) {
            return Err("function.toml: [flow] batch must be \"auto\" or \"off\"".into());
        }
        self.check_routes()?;
        self.check_available()
    }

    fn check_routes(&self) -> Result<(), String> {
        for route in &self.trigger.http {
            let wrong = |what: &str| Err(format!("function.toml: [trigger] http path \"{}\": {what}", route.path));
            if !route.path.starts_with('/') || route.path.len() < 2 {
                return wrong("must begin with / and name something");
            }
            if OWN.iter().any(|own| format!("{}/", route.path).starts_with(own)) {
                return wrong("belongs to Semel; choose another path");
            }
            if route.methods.is_empty() {
                return wrong("name at least one method");
            }
            if let Some(method) = route.methods.iter().find(|m| !METHODS.contains(&m.as_str())) {
                return wrong(&format!("\"{method}\" is not one of {}", METHODS.join(", ")));
            }
        }
        Ok(())
    }

    /// Keys that this version reads but cannot keep the promise of: refused, since ignoring them would break it.
    fn check_available(&self) -> Result<(), String> {
        let missing = [
            ("[trigger] cron", !self.trigger.cron.is_empty()),
            ("[flow] rate", self.flow.rate.is_some()),
            ("[flow] group", self.flow.group.is_some()),
            ("[grants] http", !self.grants.http.is_empty()),
            ("[grants] clock = \"real\"", self.grants.clock.as_deref().is_some_and(|clock| clock != "pinned")),
            ("[idempotency] policy = \"while-active\"", self.idempotency.policy == KeyPolicy::WhileActive),
        ];
        match missing.iter().find(|(_, asked)| *asked) {
            Some((key, _)) => Err(format!("function.toml: {key} is not available in this version; remove it")),
            None => Ok(()),
        }
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

    /// How long an idempotency key is remembered; none is forever.
    #[must_use]
    pub fn key_window(&self) -> Option<Duration> {
        (self.idempotency.policy != KeyPolicy::Forever).then_some(self.idempotency.window.0)
    }
}

/// Paths that Semel answers itself, now or in a later version.
const OWN: [&str; 6] = ["/fn/", "/v1/", "/healthz/", "/readyz/", "/metrics/", "/openapi.json/"];

const METHODS: [&str; 6] = ["DELETE", "GET", "HEAD", "PATCH", "POST", "PUT"];

/// Names end up in URLs, file names and logs: lower-case letters, digits and `-` or `_`, beginning with a letter.
fn check_name(key: &str, name: &str) -> Result<(), String> {
    let plain = name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_');
    if plain && name.starts_with(|c: char| c.is_ascii_lowercase()) && name.len() <= 63 {
        return Ok(());
    }
    Err(format!(
        "{key} = \"{}\": use at most 63 lower-case letters, digits, - and _, beginning with a letter",
        name.escape_default().take(80).collect::<String>()
    ))
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
    fn refuses_what_it_could_only_ignore() {
        let text = "name = \"a\"\n[grants]\nhttp = [\"https://example.com\"]";
        assert!(Manifest::parse(text).expect_err("http").contains("not available"));
    }
}
