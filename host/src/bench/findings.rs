//! What was measured: every sample with its round, and what follows from them. What was not measured is not there.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Value as Json, json};

use super::Options;
use super::verdict::{self, Reached};
use crate::experiment::Environment;
use crate::store::is_shared;

/// Name, what it is, and its unit.
pub(super) const FIGURES: [(&str, &str, &str); 36] = [
    ("floor_single", "without Semel, a commit for each message: the per-message limit", "/s"),
    ("floor_batched", "without Semel, 100 messages per commit", "/s"),
    ("drain_batched", "Semel", "/s"),
    ("drain_single", "Semel, batch = \"off\"", "/s"),
    ("floor_hot_single", "one counter: without Semel, a commit for each message", "/s"),
    ("floor_hot_batched", "one counter: without Semel, 100 messages per commit", "/s"),
    ("hot_batched", "one counter: Semel", "/s"),
    ("hot_single", "one counter: Semel, batch = \"off\"", "/s"),
    ("floor_insert", "without Semel, one row per commit, one connection", "/s"),
    ("floor_insert_parallel", "without Semel, one row per commit, the best number of connections", "/s"),
    ("ingest", "Semel accepts over HTTP, 32 connections", "/s"),
    ("calls", "Semel accepts, runs and answers over HTTP, 32 connections", "/s"),
    ("commit_us", "one row and its commit, without Semel", "µs"),
    ("latency_p50_us", "request to committed effect, 50 a second: median", "µs"),
    ("latency_p99_us", "… 99 of 100", "µs"),
    ("latency_half_load_p50_us", "request to committed effect, half of the calls it can take: median", "µs"),
    ("latency_half_load_p99_us", "… 99 of 100", "µs"),
    ("sandbox_us", "instantiate, call and drop, without a database", "µs"),
    ("beyond_sandbox_us", "a message of the drain, beyond its sandbox", "µs"),
    ("cpu_us_per_message", "processor time of the host per message", "µs"),
    ("cpu_us_per_message_single", "… with batch = \"off\"", "µs"),
    ("wal_bytes_per_message", "write-ahead log per message", "B"),
    ("written_bytes_per_message", "written by the host per message: log and checkpoints", "B"),
    ("rss_idle_mb", "resident memory of an idle host", "MB"),
    ("rss_load_mb", "most resident memory under all that load", "MB"),
    ("drain_clean", "Semel, the pair of the next one", "/s"),
    ("drain_poisoned", "Semel, one message among them is refused", "/s"),
    ("poison_second_attempts", "attempts that this cost others", ""),
    ("drain_fresh", "Semel, before the long history", "/s"),
    ("drain_after_5m", "Semel, after 5,000,000 messages have passed", "/s"),
    ("drain_after_many", "Semel, after the history that was asked for", "/s"),
    ("claim_1k_us", "a claim of 100 while 1,000 wait", "µs"),
    ("claim_1m_us", "a claim of 100 while 1,000,000 wait", "µs"),
    ("claim_many_us", "a claim of 100 while as many wait as was asked for", "µs"),
    ("floor_connections", "connections of the per-message limit", ""),
    ("floor_hot_connections", "the same with one counter", ""),
];

/// Name, and which two figures it is of.
pub(super) const RATIOS: [(&str, &str, &str); 15] = [
    ("drain_batched_vs_floor_single", "drain_batched", "floor_single"),
    ("drain_batched_vs_floor_batched", "drain_batched", "floor_batched"),
    ("drain_single_vs_floor_single", "drain_single", "floor_single"),
    ("hot_batched_vs_floor_single", "hot_batched", "floor_hot_single"),
    ("hot_batched_vs_floor_batched", "hot_batched", "floor_hot_batched"),
    ("hot_single_vs_floor_single", "hot_single", "floor_hot_single"),
    ("ingest_vs_floor_single", "ingest", "floor_insert"),
    ("ingest_vs_floor_parallel", "ingest", "floor_insert_parallel"),
    ("latency_p50_vs_commit", "latency_p50_us", "commit_us"),
    ("latency_p99_vs_p50", "latency_p99_us", "latency_p50_us"),
    ("poison_vs_clean", "drain_poisoned", "drain_clean"),
    ("claim_1m_vs_1k", "claim_1m_us", "claim_1k_us"),
    ("claim_many_vs_1k", "claim_many_us", "claim_1k_us"),
    ("drain_5m_vs_fresh", "drain_after_5m", "drain_fresh"),
    ("drain_many_vs_fresh", "drain_after_many", "drain_fresh"),
];

/// Over the rounds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Spread {
    pub(super) min: f64,
    pub(super) median: f64,
    pub(super) max: f64,
    pub(super) runs: usize,
}

impl Spread {
    fn of(mut samples: Vec<f64>) -> Option<Self> {
        samples.sort_by(f64::total_cmp);
        let (min, max) = (*samples.first()?, *samples.last()?);
        Some(Self { min, median: middle(&samples)?, max, runs: samples.len() })
    }

    fn rounded(self) -> Self {
        let round = |value: f64| (value * 1000.0).round() / 1000.0;
        Self { min: round(self.min), median: round(self.median), max: round(self.max), runs: self.runs }
    }
}

/// Of sorted ones.
fn middle(sorted: &[f64]) -> Option<f64> {
    let (low, high) = (sorted.get(sorted.len().checked_sub(1)? / 2)?, sorted.get(sorted.len() / 2)?);
    Some(f64::midpoint(*low, *high))
}

/// A run that was measured to its end.
pub(crate) struct Findings {
    pub(super) messages: u32,
    pub(super) rounds: u32,
    waiting: u32,
    passed: u32,
    shared: bool,
    parts: Vec<super::Part>,
    pub(super) database: Json,
    /// What was measured apart.
    pub(super) others: &'static [(&'static str, u64)],
    pub(super) environment: Environment,
    memory_bytes: Option<u64>,
    samples: BTreeMap<&'static str, Vec<(u32, f64)>>,
}

impl Findings {
    pub(super) fn new(options: &Options, database: Json, others: &'static [(&'static str, u64)]) -> Self {
        let kind = database["kind"].as_str().unwrap_or_default().to_owned() + ":";
        Self {
            messages: options.messages,
            rounds: options.rounds,
            waiting: options.waiting,
            passed: options.passed,
            shared: options.database.as_deref().is_some_and(is_shared),
            parts: options.parts.clone(),
            environment: Environment::observe(options.seed, &kind),
            database,
            others,
            memory_bytes: memory(),
            samples: BTreeMap::new(),
        }
    }

    /// One more sample.
    pub(super) fn add(&mut self, round: u32, name: &'static str, value: f64) {
        self.samples.entry(name).or_default().push((round, value));
    }

    /// The only sample of this round.
    pub(super) fn put(&mut self, round: u32, name: &'static str, value: f64) {
        let samples = self.samples.entry(name).or_default();
        samples.retain(|(of, _)| *of != round);
        samples.push((round, value));
    }

    /// Everything is measured: what follows from it, and how long it took.
    pub(super) fn finish(&mut self) {
        for round in 1..=self.rounds {
            if let (Some(rate), Some(sandbox)) =
                (self.in_round("drain_batched", round), self.in_round("sandbox_us", round))
            {
                self.add(round, "beyond_sandbox_us", 1e6 / rate - sandbox);
            }
        }
        self.environment.finish();
    }

    pub(super) fn is_shared(&self) -> bool {
        self.shared
    }

    pub(super) fn figure(&self, name: &str) -> Option<Spread> {
        Spread::of(self.samples.get(name)?.iter().map(|(_, value)| *value).collect())
    }

    /// Made within each round.
    pub(super) fn ratio(&self, name: &str) -> Option<Spread> {
        let (_, over, under) = RATIOS.iter().find(|(ratio, ..)| *ratio == name)?;
        let of_round = |round| Some(self.in_round(over, round)? / self.in_round(under, round)?);
        Spread::of((1..=self.rounds).filter_map(of_round).collect())
    }

    fn in_round(&self, name: &str, round: u32) -> Option<f64> {
        let of_round = self.samples.get(name)?.iter().filter(|(of, _)| *of == round);
        Spread::of(of_round.map(|(_, value)| *value).collect()).map(|spread| spread.median)
    }

    /// Each target whose figure was measured.
    pub(super) fn targets(&self) -> Vec<Reached> {
        verdict::judge(self.is_shared(), |name| self.ratio(name).or_else(|| self.figure(name)).map(|s| s.median))
    }

    /// For programs.
    pub(crate) fn document(&self) -> Json {
        let figures = FIGURES.iter().filter_map(|(name, ..)| Some((*name, self.figure(name)?.rounded())));
        let figures: BTreeMap<_, _> = figures.collect();
        let ratios = RATIOS.iter().filter_map(|(name, ..)| Some((*name, self.ratio(name)?.rounded())));
        let ratios: BTreeMap<_, _> = ratios.collect();
        let medians = |of: &BTreeMap<&str, Spread>| -> BTreeMap<String, f64> {
            of.iter().map(|(name, spread)| ((*name).to_owned(), spread.median)).collect()
        };
        let Environment { seed, version, commit, build, system, processors, started_at, seconds, .. } =
            &self.environment;
        json!({
            "figures": medians(&figures),
            "ratios": medians(&ratios),
            "targets": self.targets(),
            "spread": { "figures": figures, "ratios": ratios },
            "messages": self.messages,
            "rounds": self.rounds,
            "measured": self.parts.iter().filter_map(name_of).collect::<Vec<_>>(),
            "long": { "waiting": self.waiting, "passed": self.passed },
            "verified": true,
            "seed": seed,
            "database": self.database,
            "machine": { "system": system, "processors": processors, "memory_bytes": self.memory_bytes },
            "semel": { "version": version, "commit": commit, "build": build },
            "started_at": started_at,
            "seconds": seconds,
        })
    }
}

fn name_of(part: &super::Part) -> Option<String> {
    Some(clap::ValueEnum::to_possible_value(part)?.get_name().to_owned())
}

/// Of the machine.
fn memory() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_of_an_even_number_is_between_two() {
        assert_eq!(Spread::of(vec![4.0, 1.0, 3.0, 2.0]).map(|spread| spread.median), Some(2.5));
        assert_eq!(Spread::of(vec![3.0, 1.0, 2.0]).map(|s| (s.min, s.median, s.max)), Some((1.0, 2.0, 3.0)));
        assert_eq!(Spread::of(Vec::new()), None);
    }

    #[test]
    fn every_ratio_is_of_two_figures() {
        let known = |name: &str| FIGURES.iter().any(|(figure, ..)| *figure == name);
        let unknown = RATIOS.iter().filter(|(_, over, under)| !known(over) || !known(under));
        assert_eq!(unknown.count(), 0);
    }
}
