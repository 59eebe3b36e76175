//! Numbers for Prometheus: counted since the host started, and read from the store where it knows better.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

use super::{Standing, system};
use crate::store::{Depth, Known, Recovered};

/// The outcome of an attempt whose commit was refused.
const LOST_LEASE: &str = "lost-lease";

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfFunction {
    function: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfOutcome {
    function: String,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfState {
    function: String,
    state: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Went {
    to: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfSink {
    sink: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfSource {
    source: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Answered {
    route: String,
    status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Version {
    version: &'static str,
}

/// From half a millisecond to 16 seconds, each twice the one before.
#[derive(Clone)]
struct Seconds;

impl MetricConstructor<Histogram> for Seconds {
    fn new_metric(&self) -> Histogram {
        Histogram::new(exponential_buckets(0.0005, 2.0, 16))
    }
}

/// What is counted. Label values are names of deployed functions and of things in this program, never a sender's text.
pub(crate) struct Metrics {
    registry: Mutex<Registry>,
    accepted: Family<OfFunction, Counter>,
    duplicates: Family<OfFunction, Counter>,
    backlog_refusals: Counter,
    accepting: Gauge,
    accept_commits: Counter,
    attempts: Family<OfOutcome, Counter>,
    refused_commits: Family<OfFunction, Counter>,
    unknown_commits: Family<OfOutcome, Counter>,
    recovered: Family<Went, Counter>,
    running: Family<OfFunction, Gauge>,
    claim: Histogram,
    run: Family<OfFunction, Histogram, Seconds>,
    commit: Histogram,
    answers: Family<Answered, Counter>,
    queue: Family<OfState, Gauge>,
    oldest: Family<OfFunction, Gauge<f64, AtomicU64>>,
    sinks: Family<OfSink, Gauge>,
    sources: Family<OfSource, Gauge>,
    resident: Gauge,
    open_files: Gauge,
    most_files: Gauge,
}

impl Metrics {
    pub(super) fn new() -> Self {
        let metrics = Self {
            registry: Mutex::default(),
            accepted: Family::default(),
            duplicates: Family::default(),
            backlog_refusals: Counter::default(),
            accepting: Gauge::default(),
            accept_commits: Counter::default(),
            attempts: Family::default(),
            refused_commits: Family::default(),
            unknown_commits: Family::default(),
            recovered: Family::default(),
            running: Family::default(),
            claim: Seconds.new_metric(),
            run: Family::new_with_constructor(Seconds),
            commit: Seconds.new_metric(),
            answers: Family::default(),
            queue: Family::default(),
            oldest: Family::default(),
            sinks: Family::default(),
            sources: Family::default(),
            resident: Gauge::default(),
            open_files: Gauge::default(),
            most_files: Gauge::default(),
        };
        metrics.register();
        metrics.recovered(Recovered::default()); // A rate is seen only from the second number on.
        metrics
    }

    /// `_total` and the units are put to the names by the registry.
    fn register(&self) {
        let mut registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        let version = Family::<Version, Gauge>::default();
        version.get_or_create(&Version { version: env!("CARGO_PKG_VERSION") }).set(1);
        registry.register("process_resident_memory_bytes", "Memory of this process in RAM", self.resident.clone());
        registry.register("process_open_fds", "Open files, sockets included", self.open_files.clone());
        registry.register("process_max_fds", "How many of them there may be", self.most_files.clone());

        let semel = registry.sub_registry_with_prefix("semel");
        semel.register("build_info", "The version of this program", version);
        semel.register("messages_accepted", "Messages that were taken over HTTP", self.accepted.clone());
        semel.register(
            "messages_duplicate",
            "Requests whose key had been used for the same before",
            self.duplicates.clone(),
        );
        semel.register(
            "backlog_refusals",
            "Messages that were refused since too many wait (429)",
            self.backlog_refusals.clone(),
        );
        semel.register("accepting", "Messages that wait for the commit that accepts them", self.accepting.clone());
        semel.register(
            "accept_commits",
            "Commits for messages that came over HTTP; each may be for many",
            self.accept_commits.clone(),
        );
        semel.register(
            "sink_up",
            "Whether events go through to a sink: 1, or 0 while it is closed",
            self.sinks.clone(),
        );
        semel.register("source_up", "Whether a source receives: 1, or 0 while it is closed", self.sources.clone());
        semel.register("attempts", "Attempts that ended, by outcome", self.attempts.clone());
        semel.register(
            "refused_commits",
            "Commits that the fence refused: somebody else had taken the message over",
            self.refused_commits.clone(),
        );
        semel.register(
            "commits_unknown",
            "Commits whose answer was lost, by what the database said later",
            self.unknown_commits.clone(),
        );
        semel.register(
            "recovered",
            "Messages of dead hosts or ended leases, by where they went",
            self.recovered.clone(),
        );
        semel.register("running", "Attempts that run now", self.running.clone());
        let (claim, run, commit) = (self.claim.clone(), self.run.clone(), self.commit.clone());
        semel.register_with_unit("claim", "Time of one claim of messages, its commit included", Unit::Seconds, claim);
        semel.register_with_unit("run", "Time of one run of a guest, its wait for a turn included", Unit::Seconds, run);
        semel.register_with_unit("commit", "Time of one commit of effects and acknowledgement", Unit::Seconds, commit);
        semel.register("http_answers", "Answers over HTTP, by route and status", self.answers.clone());
        semel.register(
            "queue_messages",
            "Messages that wait, run, or need somebody to decide, by state",
            self.queue.clone(),
        );
        semel.register_with_unit(
            "queue_oldest_age",
            "How long the message that is due for longest has been due",
            Unit::Seconds,
            self.oldest.clone(),
        );
    }

    /// A message was accepted, or its key was known.
    pub(crate) fn accepted(&self, function: &str, duplicate: bool) {
        let family = if duplicate { &self.duplicates } else { &self.accepted };
        family.get_or_create(&of(function)).inc();
    }

    /// A message was refused by a backlog limit.
    pub(crate) fn backlog_refused(&self) {
        self.backlog_refusals.inc();
    }

    /// So many messages wait for their commit, until what is returned is dropped.
    pub(crate) fn accepting(&self, messages: usize) -> Waiting {
        let messages = gauge(messages as u64);
        self.accepting.inc_by(messages);
        Waiting { of: self.accepting.clone(), messages }
    }

    /// Messages are about to be accepted, one or many in one commit.
    pub(crate) fn accept_committed(&self) {
        self.accept_commits.inc();
    }

    /// An answer left.
    pub(crate) fn answered(&self, route: &str, status: u16) {
        self.answers.get_or_create(&Answered { route: route.to_owned(), status }).inc();
    }

    /// A claim brought messages.
    pub(crate) fn claimed(&self, time: Duration) {
        self.claim.observe(time.as_secs_f64());
    }

    /// A commit was answered, whatever the answer.
    pub(crate) fn committed(&self, time: Duration) {
        self.commit.observe(time.as_secs_f64());
    }

    /// Messages were recovered.
    pub(crate) fn recovered(&self, found: Recovered) {
        for (to, messages) in [("available", found.freed), ("dead", found.dead), ("in-doubt", found.in_doubt)] {
            self.recovered.get_or_create(&Went { to }).inc_by(messages);
        }
    }

    pub(super) fn begun(&self, function: &str) {
        self.running.get_or_create(&of(function)).inc();
    }

    pub(super) fn ran(&self, function: &str, time: Duration) {
        self.run.get_or_create(&of(function)).observe(time.as_secs_f64());
    }

    pub(super) fn ended(&self, function: &str, outcome: &'static str) {
        self.attempts.get_or_create(&OfOutcome { function: function.to_owned(), outcome }).inc();
        if outcome == LOST_LEASE {
            self.refused_commits.get_or_create(&of(function)).inc();
        }
    }

    /// The database has said what became of a commit whose answer was lost. Returns the word for it.
    pub(crate) fn resolved(&self, function: &str, known: Known) -> &'static str {
        let outcome = match known {
            Known::Committed => "done",
            Known::RolledBack => "not-done",
            Known::Fenced => "refused",
        };
        self.unknown_commits.get_or_create(&OfOutcome { function: function.to_owned(), outcome }).inc();
        outcome
    }

    pub(super) fn over(&self, function: &str) {
        self.running.get_or_create(&of(function)).dec();
    }

    /// All of it in the text format, with what the store has just said.
    pub(crate) fn scrape(&self, depths: &[Depth], ways: &BTreeMap<String, Standing>) -> String {
        let registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner); // One scrape at a time.
        self.queue.clear();
        self.oldest.clear();
        for depth in depths {
            let of_state = OfState { function: depth.function.clone(), state: depth.state.as_str() };
            self.queue.get_or_create(&of_state).set(gauge(depth.messages));
            if let Some(age) = depth.oldest_due {
                self.oldest.get_or_create(&of(&depth.function)).set(age.as_secs_f64());
            }
        }
        for (way, standing) in ways {
            let up = i64::from(standing.trouble.is_none());
            match way.split_once(':') {
                Some(("sink", name)) => self.sinks.get_or_create(&OfSink { sink: name.to_owned() }).set(up),
                Some((_, name)) => self.sources.get_or_create(&OfSource { source: name.to_owned() }).set(up),
                None => continue,
            };
        }
        let process = system::Process::now();
        self.resident.set(gauge(process.resident_bytes));
        self.open_files.set(gauge(process.open_files));
        self.most_files.set(gauge(process.most_files));
        let mut scraped = String::new();
        let _ = text::encode(&mut scraped, &registry); // Writing to a string cannot fail.
        scraped
    }
}

/// Messages that are counted while they wait.
pub(crate) struct Waiting {
    of: Gauge,
    messages: i64,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.of.dec_by(self.messages);
    }
}

fn of(function: &str) -> OfFunction {
    OfFunction { function: function.to_owned() }
}

fn gauge(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
