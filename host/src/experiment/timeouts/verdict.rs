//! The verdict on a run: a pure function of what was observed.

use super::super::report::grouped;
use super::super::{Check, Verdict};
use super::grid::Cell;
use super::{Ended, Evidence};

/// Both say that the claim did not hold to the end: recovery, and who was refused by the fence.
const TAKEN_OVER: [&str; 2] = ["host-lost", "lost-lease"];

/// Judges a run.
pub(super) fn judge(seen: &Evidence, messages: u64) -> Verdict {
    let of = |ended: &Ended| seen.cells[ended.cell];
    let count = |wrong: &dyn Fn(&Ended) -> bool| seen.ended.iter().filter(|ended| wrong(ended)).count() as u64;
    let taken = count(&is_taken_over);
    let timed_out = count(&|ended| ended.outcomes.iter().any(|end| end == "timed-out"));
    let some = |claim: &str, found: u64| Check::new(claim, found > 0, "1 or more", grouped(found));
    let checks = vec![
        Check::equal("messages", messages * seen.cells.len() as u64, seen.ended.len() as u64),
        Check::equal(
            "messages whose effect is there once, in whatever cell",
            seen.ended.len() as u64,
            count(&|ended| ended.effects == 1),
        ),
        Check::equal(
            "messages whose claim was taken over although the lease is longer than the run, or was renewed",
            0,
            count(&|ended| is_taken_over(ended) && !of(ended).is_taken_over()),
        ),
        Check::equal(
            "messages whose hard timeout is below their lease, and that were taken over",
            0,
            count(&|ended| is_taken_over(ended) && of(ended).timeout < of(ended).lease),
        ),
        Check::equal(
            "messages whose attempts ended otherwise than their cell says",
            0,
            count(&|ended| !fits(ended, &of(ended))),
        ),
        some("messages that were taken over while they ran", taken),
        some("messages of which the hard timeout ended an attempt", timed_out),
    ];
    Verdict::of(checks, shown(seen, taken))
}

fn shown(seen: &Evidence, taken: u64) -> String {
    format!(
        "in all {} cells each effect is there once; {} claims were taken over, and only where the lease is shorter than the run \
         and nobody renews it",
        seen.cells.len(),
        grouped(taken)
    )
}

pub(super) fn is_taken_over(ended: &Ended) -> bool {
    ended.outcomes.iter().any(|end| TAKEN_OVER.contains(&end.as_str()))
}

/// A claim that was taken over may be so more than once, where the machine is slow, and a run that its hard timeout ended after
/// that says so itself. All else is exact.
fn fits(ended: &Ended, cell: &Cell) -> bool {
    let word = |end: &'_ String| match end.as_str() {
        end if TAKEN_OVER.contains(&end) => "taken-over",
        "timed-out" if cell.is_taken_over() => "taken-over",
        "timed-out" => "timed-out",
        "completed" => "completed",
        _ => "something else",
    };
    let mut words: Vec<&str> = ended.outcomes.iter().map(word).collect();
    words.dedup();
    words == cell.expected()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::grid;
    use super::*;

    fn good() -> Evidence {
        let cells = grid::all(Duration::from_millis(100));
        let ended = |(cell, of): (usize, &Cell)| {
            let word = |end: &&str| if *end == "taken-over" { "lost-lease" } else { *end }.to_owned();
            Ended { cell, outcomes: of.expected().iter().map(word).collect(), effects: 1 }
        };
        Evidence { ended: cells.iter().enumerate().map(ended).collect(), cells, hosts: 1 }
    }

    #[test]
    fn every_way_to_be_wrong_fails() {
        assert!(judge(&good(), 1).passed, "{}", judge(&good(), 1).summary);
        let check = |what: &str, change: &dyn Fn(&mut Evidence)| {
            let mut seen = good();
            change(&mut seen);
            let verdict = judge(&seen, 1);
            assert!(!verdict.passed && verdict.summary.contains(what), "{what}: {}", verdict.summary);
        };
        check("once, in whatever cell", &|seen| seen.ended[3].effects = 2);
        check("once, in whatever cell", &|seen| seen.ended[3].effects = 0);
        check("messages: expected 24", &|seen| drop(seen.ended.pop()));
        check("although the lease", &|seen| seen.ended[0].outcomes.insert(0, "host-lost".into()));
        check("otherwise than their cell says", &|seen| seen.ended[0].outcomes.insert(0, "failed".into()));
        let not_taken = |seen: &mut Evidence| {
            for ended in &mut seen.ended {
                ended.outcomes.retain(|end| end != "lost-lease");
            }
        };
        check("taken over while they ran", &not_taken);
    }
}
