//! What must hold of a manifest beyond its shape.

use std::sync::LazyLock;
use std::time::Duration;

use super::{COMMIT_MARGIN, Manifest};
use crate::deferred::FUNCTION;
use crate::outside::Grants;

/// For experiments: with `SEMEL_EXPERIMENT_UNSAFE_LEASES=1` a run may outlive its lease, which shows why it must not elsewhere.
pub static UNSAFE_LEASES: LazyLock<bool> =
    LazyLock::new(|| std::env::var_os("SEMEL_EXPERIMENT_UNSAFE_LEASES").is_some_and(|value| value == "1"));

impl Manifest {
    pub(super) fn check(&self, text: &str) -> Result<(), String> {
        let at = |offset: usize| text.as_bytes()[..offset.min(text.len())].iter().filter(|b| **b == b'\n').count() + 1;
        let refuse = |offset: usize, what: String| Err(format!("function.toml, line {}: {what}", at(offset)));
        check_name("name", &self.name).map_err(|e| format!("function.toml: {e}"))?;
        check_name("app", &self.app).map_err(|e| format!("function.toml: {e}"))?;
        let (timeout, lease) = (&self.limits.timeout, &self.limits.lease);
        if self.timeout() < Duration::from_millis(10) {
            return refuse(timeout.span().start, "[limits] timeout must be at least 10ms".into());
        }
        if self.timeout() + COMMIT_MARGIN >= self.lease() && !*UNSAFE_LEASES {
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
        if self.idempotency.window.0.is_zero() {
            return Err("function.toml: [idempotency] window must be longer than nothing".into());
        }
        Grants::parse(&self.grants.http).map_err(|e| format!("function.toml: [grants] http: {e}"))?;
        self.check_reserved().map_err(|e| format!("function.toml: {e}"))?;
        self.check_routes()?;
        self.check_cron(refuse)
    }

    /// Names that are the engine's own.
    fn check_reserved(&self) -> Result<(), String> {
        if self.name == FUNCTION {
            return Err(format!("name = \"{FUNCTION}\" is Semel's own; choose another"));
        }
        if self.app == "semel" {
            return Err("app = \"semel\" is Semel's own; choose another".into());
        }
        if self.trigger.topics.iter().chain(&self.grants.topics).any(|topic| topic == FUNCTION) {
            return Err(format!(
                "the topic \"{FUNCTION}\" is Semel's own; import semel:function/deferred-http instead"
            ));
        }
        Ok(())
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

    fn check_cron(&self, refuse: impl Fn(usize, String) -> Result<(), String>) -> Result<(), String> {
        let cron = &self.trigger.cron;
        if cron.len() > MOST_SCHEDULES {
            return Err(format!("function.toml: [trigger] cron has at most {MOST_SCHEDULES} schedules"));
        }
        for (place, one) in cron.iter().enumerate() {
            if one.body().len() > BODY_BYTES {
                let most = format!("[trigger] cron: a body has at most {BODY_BYTES} bytes");
                return refuse(one.body.span().start, most);
            }
            if cron[..place].iter().any(|other| other.key() == one.key()) {
                return Err(format!(
                    "function.toml: [trigger] cron \"{}\" is there twice, with the same time zone and body; once is enough",
                    one.schedule()
                ));
            }
        }
        Ok(())
    }
}

/// Schedules of one function.
const MOST_SCHEDULES: usize = 100;
/// Body of the message that a schedule sends: as large as one that is published.
const BODY_BYTES: usize = 1 << 20;

/// Paths that Semel answers itself, now or in a later version.
const OWN: [&str; 6] = ["/fn/", "/v1/", "/healthz/", "/readyz/", "/metrics/", "/openapi.json/"];

const METHODS: [&str; 6] = ["DELETE", "GET", "HEAD", "PATCH", "POST", "PUT"];

/// Names end up in URLs, file names and logs: lower-case letters, digits and `-` or `_`, beginning with a letter.
pub(crate) fn check_name(key: &str, name: &str) -> Result<(), String> {
    let plain = name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_');
    if plain && name.starts_with(|c: char| c.is_ascii_lowercase()) && name.len() <= 63 {
        return Ok(());
    }
    Err(format!(
        "{key} = \"{}\": use at most 63 lower-case letters, digits, - and _, beginning with a letter",
        name.escape_default().take(80).collect::<String>()
    ))
}
