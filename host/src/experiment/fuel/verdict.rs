//! The verdict on a run: a pure function of what was observed.

use std::collections::{BTreeSet, HashMap};

use super::super::report::grouped;
use super::super::{Check, Verdict};
use super::{BUDGETS, Evidence, Kind};

/// What was used, over all runs of one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Spread {
    pub(super) least: u64,
    pub(super) middle: u64,
    pub(super) most: u64,
}

impl Spread {
    pub(super) fn of(mut values: Vec<u64>) -> Self {
        values.sort_unstable();
        let at = |place: usize| values.get(place).copied().unwrap_or(0);
        Self { least: at(0), middle: at(values.len() / 2), most: at(values.len().saturating_sub(1)) }
    }

    /// From the least to the most, in parts of a million of the middle.
    pub(super) fn parts(&self) -> u64 {
        (self.most - self.least) * 1_000_000 / self.middle.max(1)
    }
}

impl Kind {
    pub(super) fn fuel(&self) -> Spread {
        Spread::of(self.runs.iter().filter_map(|run| run.fuel).collect())
    }

    pub(super) fn wall(&self) -> Spread {
        Spread::of(self.runs.iter().map(|run| run.micros).collect())
    }
}

/// Judges a run.
pub(super) fn judge(seen: &Evidence, messages: u64, attempts: u32) -> Verdict {
    let kinds = &seen.kinds;
    let runs: u64 = kinds.iter().map(|kind| kind.runs.len() as u64).sum();
    let metered = kinds.iter().flat_map(|kind| &kind.runs).filter(|run| run.fuel.is_some_and(|fuel| fuel > 0)).count();
    let count = |wrong: &dyn Fn(&Kind) -> bool| kinds.iter().filter(|kind| wrong(kind)).count() as u64;
    let moved = moved(kinds);
    let checks = vec![
        Check::equal("attempts without a budget", messages * u64::from(attempts) * kinds.len() as u64, runs),
        Check::equal("of these, with their fuel on record", runs, metered as u64),
        Check::new("messages that were tried on more than one host", moved > 0, "1 or more", grouped(moved)),
        Check::equal(
            "kinds of work whose fuel was not the same on every attempt",
            0,
            count(&|kind| kind.fuel().parts() > 0),
        ),
        Check::equal("kinds of work whose wall time was always the same", 0, count(&|kind| kind.wall().parts() == 0)),
        Check::equal(
            "messages with a budget",
            messages * (BUDGETS.len() * kinds.len()) as u64,
            budgeted(kinds).count() as u64,
        ),
        Check::equal(
            "messages with fuel enough that did not complete at the first attempt",
            0,
            budgeted(kinds).filter(|(budget, ends)| *budget > 100 && **ends != ["completed"]).count() as u64,
        ),
        Check::equal(
            "messages with too little fuel of which an attempt ended otherwise than out of fuel",
            0,
            budgeted(kinds)
                .filter(|(budget, ends)| {
                    *budget < 100 && (ends.is_empty() || ends.iter().any(|end| end != "out-of-fuel"))
                })
                .count() as u64,
        ),
        Check::equal("rows: one for each message that completed, none for any other", seen.completed, seen.rows),
    ];
    let shown = format!(
        "over {} attempts on more than one host the same message always used the same fuel, to the unit, and never the same time",
        grouped(runs)
    );
    Verdict::of(checks, shown)
}

/// Messages with a budget: which, and how their attempts ended.
pub(super) fn budgeted(kinds: &[Kind]) -> impl Iterator<Item = (u64, &Vec<String>)> {
    let all = kinds.iter().flat_map(|kind| kind.budgets.iter().zip(BUDGETS));
    all.flat_map(|(all, budget)| all.iter().map(move |ends| (budget, ends)))
}

fn moved(kinds: &[Kind]) -> u64 {
    let mut hosts: HashMap<&str, BTreeSet<&str>> = HashMap::new();
    for run in kinds.iter().flat_map(|kind| &kind.runs) {
        hosts.entry(&run.message).or_default().insert(&run.host);
    }
    hosts.values().filter(|hosts| hosts.len() > 1).count() as u64
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::Run;
    use super::*;

    fn good() -> Evidence {
        let run = |message: &str, host: &str, micros| Run {
            message: message.into(),
            host: host.into(),
            fuel: Some(1000),
            micros,
        };
        let well = || vec![vec!["completed".to_owned()]];
        let dry = || vec![vec!["out-of-fuel".to_owned(); 3]];
        let kind = Kind {
            name: "k",
            order: json!({}),
            need: 990,
            runs: vec![run("a", "one", 10), run("a", "two", 12)],
            budgets: vec![dry(), dry(), well(), well()],
        };
        Evidence { kinds: vec![kind], completed: 3, rows: 3 }
    }

    #[test]
    fn every_way_to_be_wrong_fails() {
        assert!(judge(&good(), 1, 2).passed, "{}", judge(&good(), 1, 2).summary);
        let check = |what: &str, change: &dyn Fn(&mut Evidence)| {
            let mut seen = good();
            change(&mut seen);
            let verdict = judge(&seen, 1, 2);
            assert!(!verdict.passed && verdict.summary.contains(what), "{what}: {}", verdict.summary);
        };
        check("fuel was not the same", &|seen| seen.kinds[0].runs[1].fuel = Some(1001));
        check("fuel on record", &|seen| seen.kinds[0].runs[1].fuel = None);
        check("more than one host", &|seen| seen.kinds[0].runs[1].host = "one".into());
        check("always the same", &|seen| seen.kinds[0].runs[1].micros = 10);
        check("attempts without a budget", &|seen| drop(seen.kinds[0].runs.pop()));
        check("fuel enough", &|seen| seen.kinds[0].budgets[2][0].insert(0, "failed".into()));
        check("too little fuel", &|seen| seen.kinds[0].budgets[1][0].push("completed".into()));
        check("rows", &|seen| seen.rows = 4);
    }

    #[test]
    fn the_spread_is_a_share_of_the_middle() {
        assert_eq!(Spread::of(vec![90, 100, 110]).parts(), 200_000);
        assert_eq!(Spread::of(Vec::new()).parts(), 0);
    }
}
