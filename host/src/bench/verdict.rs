//! What is to be reached, and what was. A target whose figure was not measured is in no list.

use serde::Serialize;

/// On which kind of database a target stands.
#[derive(Clone, Copy, PartialEq)]
enum On {
    Both,
    File,
    Server,
}

use On::{Both, File, Server};

/// The name of a ratio or figure, what it is, where; at least (or at most) this, and what would be remarkable.
type Target = (&'static str, &'static str, On, Bound, f64, Option<f64>);

#[derive(Clone, Copy)]
enum Bound {
    Least,
    Most,
}

use Bound::{Least, Most};

const TARGETS: [Target; 15] = [
    ("drain_batched_vs_floor_single", "drain ÷ per-message limit", Server, Least, 2.0, Some(5.0)),
    ("drain_batched_vs_floor_single", "drain ÷ a commit for each message", File, Least, 3.0, Some(6.0)),
    ("drain_single_vs_floor_single", "drain, batch = \"off\" ÷ the same", Both, Least, 0.6, Some(0.9)),
    ("hot_batched_vs_floor_single", "one counter ÷ its per-message limit", Server, Least, 3.0, Some(10.0)),
    ("beyond_sandbox_us", "a message beyond its sandbox, µs", File, Most, 20.0, Some(5.0)),
    ("ingest_vs_floor_single", "ingest ÷ one commit per request", Both, Least, 5.0, Some(15.0)),
    ("latency_p50_vs_commit", "request to effect, median ÷ one commit", Both, Most, 6.0, Some(4.0)),
    ("latency_p99_vs_p50", "request to effect, 99 of 100 ÷ median", Both, Most, 4.0, Some(2.5)),
    ("claim_1m_vs_1k", "claim while 1,000,000 wait ÷ 1,000", Both, Most, 1.5, Some(1.1)),
    ("drain_5m_vs_fresh", "drain after 5,000,000 ÷ fresh", Both, Least, 0.9, Some(0.98)),
    ("poison_vs_clean", "drain with a poison message ÷ without", Both, Least, 0.9, None),
    ("poison_second_attempts", "attempts that it cost others", Both, Most, 0.0, None),
    ("sandbox_us", "instantiate, call and drop, µs", Both, Most, 30.0, Some(10.0)),
    ("rss_idle_mb", "resident memory, idle, MB", Both, Most, 64.0, Some(30.0)),
    ("rss_load_mb", "resident memory under load, MB", Both, Most, 200.0, Some(100.0)),
];

/// A target, and whether it was reached.
#[derive(Debug, Serialize)]
pub(super) struct Reached {
    pub(super) name: &'static str,
    pub(super) what: &'static str,
    pub(super) target: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) moonshot: Option<String>,
    pub(super) found: f64,
    pub(super) reached: bool,
}

/// Judges what `found` knows.
pub(super) fn judge(shared: bool, found: impl Fn(&str) -> Option<f64>) -> Vec<Reached> {
    let here = |on: &On| *on == Both || *on == if shared { Server } else { File };
    let judged =
        TARGETS.iter().filter(|(_, _, on, ..)| here(on)).filter_map(|(name, what, _, bound, target, moonshot)| {
            let found = found(name)?;
            let (sign, reached) = match bound {
                Least => ("≥", found >= *target),
                Most => ("≤", found <= *target),
            };
            let found = (found * 1000.0).round() / 1000.0;
            let moonshot = moonshot.map(|moonshot| format!("{sign} {moonshot}"));
            Some(Reached { name, what, target: format!("{sign} {target}"), moonshot, found, reached })
        });
    judged.collect()
}

#[cfg(test)]
mod tests {
    use super::super::findings::{FIGURES, RATIOS};
    use super::*;

    #[test]
    fn what_was_not_measured_is_neither_reached_nor_missed() {
        let only = |name: &str| (name == "drain_batched_vs_floor_single").then_some(2.5);
        let [server, file] = [true, false].map(|shared| judge(shared, only));
        assert_eq!((server.len(), server[0].reached, server[0].target.as_str()), (1, true, "≥ 2"));
        assert_eq!((file.len(), file[0].reached), (1, false), "more is asked of a file");
        let most = judge(true, |name| (name == "rss_idle_mb").then_some(64.1));
        assert!(!most[0].reached);
    }

    #[test]
    fn every_target_is_one_of_a_figure_or_ratio() {
        let known = FIGURES.iter().map(|(name, ..)| *name).chain(RATIOS.iter().map(|(name, ..)| *name));
        let known: Vec<_> = known.collect();
        assert!(TARGETS.iter().all(|(name, ..)| known.contains(name)));
    }
}
