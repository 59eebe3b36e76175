//! The verdict on a run: a pure function of what was observed.
//!
//! Outcomes and counts are exact: one run that ended otherwise is a finding. What was measured may be 10 % more than
//! before, and the latency is compared with that of the host beside, measured in the same minutes.

use super::super::report::grouped;
use super::super::{Check, Verdict};
use super::load::Tally;
use super::{Evidence, Pair, essay};

/// In hundredths of what was there before.
const MOST: u64 = 110;
/// One in so many runs may be cut off by the clock.
const MOST_CUT_OFF: u64 = 10;
const CUT_OFF: &str = "timed-out";
/// In what must not be more than so.
pub(super) const WITHIN: &str = "within 10 % of before";

/// Judges a run.
pub(super) fn judge(seen: &Evidence, of_each_kind: u64) -> Verdict {
    let accepted: u64 = seen.tallies.iter().map(|tally| tally.accepted).sum();
    let fewest = seen.tallies.iter().map(|tally| tally.accepted).min().unwrap_or(0);
    let mut checks = vec![
        Check::new(
            "messages of each kind",
            fewest >= of_each_kind,
            format!("{} or more", grouped(of_each_kind)),
            grouped(fewest),
        ),
        Check::equal("messages left available or running", 0, seen.open),
        Check::equal("starts: one attempt is one start", accepted, seen.starts),
        Check::equal("messages with an attempt that started again", 0, seen.repeated),
        Check::equal("runs that came to an end which is not their kind's", 0, seen.tallies.iter().map(others).sum()),
        cut_off_too_often(&seen.tallies, accepted),
        kinds_never_seen(&seen.tallies),
        Check::equal("rows and messages that failed runs left", 0, seen.left),
        Check::equal("messages to `counter`, each counted once", seen.counted.asked, seen.counted.count),
    ];
    checks.extend(measured(&seen.before, &seen.after));
    checks.extend(essay::checks(&seen.essay));
    Verdict::of(checks, format!("{} runs misbehaved, and each took nothing but itself", grouped(accepted)))
}

fn others(tally: &Tally) -> u64 {
    let others = tally.ends.iter().filter(|(end, _)| !tally.kind.outcomes.contains(&end.as_str()));
    others.filter(|(end, _)| *end != CUT_OFF).map(|(_, runs)| runs).sum()
}

/// Runs that had no time to do what they are here for: 100 ms are not much where other processes want the processor.
pub(super) fn cut_off(tally: &Tally) -> u64 {
    if tally.kind.outcomes.contains(&CUT_OFF) { 0 } else { tally.ends.get(CUT_OFF).copied().unwrap_or(0) }
}

fn cut_off_too_often(tallies: &[Tally], accepted: u64) -> Check {
    let (cut, most) = (tallies.iter().map(cut_off).sum(), accepted / MOST_CUT_OFF);
    let claim = "runs that the clock ended before they could misbehave";
    Check::new(claim, cut <= most, format!("at most {}", grouped(most)), grouped(cut))
}

/// The fault must have fired: an end by the clock alone would show nothing of the kind.
fn kinds_never_seen(tallies: &[Tally]) -> Check {
    let expected = |tally: &&Tally| !tally.kind.outcomes.iter().any(|end| tally.ends.contains_key(*end));
    let missing: Vec<&str> = tallies.iter().filter(expected).map(|tally| tally.kind.name).collect();
    let found = if missing.is_empty() { "none".to_owned() } else { missing.join(", ") };
    Check::new("kinds that never came to the end that is theirs", missing.is_empty(), "none", found)
}

fn measured(before: &Pair, after: &Pair) -> [Check; 3] {
    let memory = (before.tested.resident, after.tested.resident);
    let files = (before.tested.files, after.tested.files);
    let micros = |pair: &Pair| [pair.tested, pair.beside].map(|vitals| vitals.latency.as_micros());
    let ([was, was_beside], [is, is_beside]) = (micros(before), micros(after));
    [
        limited("resident memory", memory, "KiB"),
        limited("open files", files, ""),
        Check::new(
            format!("latency of `counter`, as the host beside has it, {WITHIN}"),
            is * was_beside * 100 <= was * is_beside * u128::from(MOST),
            format!(
                "at most {:.2} times the {was} µs of before, since beside it {was_beside} µs became {is_beside}",
                MOST as f64 / 100.0 * is_beside as f64 / was_beside.max(1) as f64
            ),
            format!("{is} µs, {:.2} times", is as f64 / was.max(1) as f64),
        ),
    ]
}

fn limited(what: &str, (before, after): (u64, u64), unit: &str) -> Check {
    let shown = |number: u64| format!("{} {unit}", grouped(number)).trim_end().to_owned();
    let most = before * MOST / 100;
    Check::new(format!("{what}, {WITHIN}"), after <= most, format!("at most {}", shown(most)), shown(after))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use super::super::kinds::{ALL, Kind};
    use super::super::vitals::Vitals;
    use super::super::{Counted, load};
    use super::*;

    fn ended(kind: Kind, end: &str) -> load::Tally {
        Tally { kind, accepted: 500, ends: BTreeMap::from([(end.to_owned(), 500)]) }
    }

    fn good() -> Evidence {
        let vitals = Vitals { resident: 100_000, files: 20, latency: Duration::from_millis(2) };
        let pair = Pair { tested: vitals, beside: vitals };
        Evidence {
            tallies: ALL.iter().map(|kind| ended(*kind, kind.outcomes[0])).collect(),
            counted: Counted { asked: 900, count: 900 },
            open: 0,
            starts: 10_000,
            repeated: 0,
            left: 0,
            start: vitals,
            before: pair,
            after: pair,
            essay: essay::good(),
        }
    }

    #[track_caller]
    fn check(seen: &Evidence, reason: &str) {
        let verdict = judge(seen, 500);
        assert!(!verdict.passed && verdict.summary.contains(reason), "{}", verdict.summary);
    }

    #[test]
    fn a_run_in_which_nothing_happened_passes() {
        let verdict = judge(&good(), 500);
        assert!(verdict.passed, "{}", verdict.summary);
    }

    #[test]
    fn each_thing_that_must_not_be_is_a_failure_of_its_own() {
        let change = |change: &dyn Fn(&mut Evidence)| {
            let mut seen = good();
            change(&mut seen);
            seen
        };
        check(&change(&|seen| seen.open = 1), "left available");
        check(&change(&|seen| seen.starts = 10_001), "one attempt is one start");
        check(&change(&|seen| seen.repeated = 1), "started again");
        check(&change(&|seen| seen.left = 1), "failed runs left");
        check(&change(&|seen| seen.counted.count = 901), "each counted once");
        check(&change(&|seen| seen.tallies[3].accepted = 499), "of each kind");
        check(&change(&|seen| seen.tallies[0] = ended(ALL[0], "completed")), "not their kind's");
        let cut = |kind: usize| {
            move |seen: &mut Evidence| {
                seen.tallies[kind].ends.insert("timed-out".into(), 1001);
            }
        };
        check(&change(&cut(0)), "before they could misbehave");
        assert!(judge(&change(&cut(2)), 500).passed, "an endless loop is there to be ended by the clock");
        check(&change(&|seen| seen.tallies[1] = ended(ALL[1], "timed-out")), "panic");
        check(&change(&|seen| seen.after.tested.resident = 110_001), "resident memory");
        check(&change(&|seen| seen.after.tested.files = 23), "open files");
        check(&change(&|seen| seen.essay[0].end.effects = 2), "their contract says");
        check(&change(&|seen| seen.after.tested.latency = Duration::from_micros(2_201)), "latency");
    }

    #[test]
    fn a_machine_that_became_slower_is_not_the_hosts_doing() {
        let mut seen = good();
        seen.after.tested.latency *= 3;
        seen.after.beside.latency *= 3;
        assert!(judge(&seen, 500).passed);
    }
}
