//! The verdict on a run of the counter: a pure function of what was observed.
//!
//! Too few and too many are different failures with different causes (a lost message, a lost fence), so they are
//! told apart. Nothing here is a matter of degree: one message too many among ten thousand is a broken promise.

use std::fmt::Write as _;

use super::super::report::grouped;
use super::super::{Check, Verdict};
use super::{Contract, Faults};

/// What was observed, in numbers. The first ones say what was done, the rest what came of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Observed {
    pub(super) contract: Contract,
    pub(super) requests: u64,
    pub(super) kills: u64,
    /// Faults that had to hit work.
    pub(super) wanted: Faults,
    /// Faults that did.
    pub(super) hits: Faults,
    /// Claims that a zombie completed although they had been taken over.
    pub(super) doubled: u64,
    /// Different messages that the host has answered for.
    pub(super) accepted: u64,
    /// Of those, messages that the database does not have.
    pub(super) lost: u64,
    /// Messages in the database that nobody got an answer for.
    pub(super) unasked: u64,
    /// What the counter says.
    pub(super) count: u64,
    /// Messages still available or running at the end.
    pub(super) open: u64,
    pub(super) completed: u64,
    pub(super) in_doubt: u64,
    pub(super) dead: u64,
    /// Dead without a reason.
    pub(super) unexplained: u64,
    pub(super) never_started: u64,
    /// Completed, and the witness saw no start.
    pub(super) completed_unstarted: u64,
    /// Messages with more than one start. What was begun together with others in vain is no start, here and below.
    pub(super) started_again: u64,
    /// Messages with more starts than attempts.
    pub(super) uncounted: u64,
    /// Messages with an attempt that started more often than it may: see [`Witness::repeats_an_attempt`].
    pub(super) repeated: u64,
    /// Started messages that the database does not have.
    pub(super) strays: u64,
}

/// Judges a run.
pub(super) fn judge(run: &Observed) -> Verdict {
    let mut checks = vec![
        Check::equal("every request became a message of its own", run.requests, run.accepted),
        Check::equal("accepted messages that the database lost", 0, run.lost),
        Check::equal("messages that nobody sent", 0, run.unasked),
        Check::equal("messages left available or running", 0, run.open),
    ];
    let shown = match run.contract {
        Contract::FinishOnce => finish_once(run, &mut checks),
        Contract::BeginOnce => begin_once(run, &mut checks),
    };
    checks.extend([
        Check::equal("messages with more starts than attempts", 0, run.uncounted),
        Check::equal("messages with an attempt that started again", 0, run.repeated),
        Check::equal("started messages that the database does not know", 0, run.strays),
    ]);
    checks.extend(fired(run));
    Verdict::of(checks, shown)
}

fn finish_once(run: &Observed, checks: &mut Vec<Check>) -> String {
    checks.extend([
        exact("the count is the number of requests", run.requests, run.count),
        Check::equal("every message is completed", run.requests, run.completed),
        Check::equal("messages never started", 0, run.never_started),
    ]);
    format!("{} requests, each counted exactly once; {}", grouped(run.count), endured(run))
}

fn begin_once(run: &Observed, checks: &mut Vec<Check>) -> String {
    let known = run.completed + run.in_doubt + run.dead;
    checks.extend([
        exact("the count is the number of completed messages", run.completed, run.count),
        Check::equal("every message is completed, in doubt or dead", run.requests, known),
        Check::equal("messages dead without a reason", 0, run.unexplained),
        Check::equal("messages started twice", 0, run.started_again),
        Check::equal("messages completed without a start", 0, run.completed_unstarted),
    ]);
    let (requests, count) = (grouped(run.requests), grouped(run.count));
    format!(
        "{requests} requests, none started twice: {count} counted once, {} in doubt, {} dead; {}",
        run.in_doubt,
        run.dead,
        endured(run),
    )
}

fn exact(claim: &str, expected: u64, count: u64) -> Check {
    let found = match count.checked_sub(expected) {
        Some(0) => grouped(count),
        Some(over) => format!("{}, an overshoot: {} counted more than once", grouped(count), grouped(over)),
        None => format!("{}, an undershoot: {} not counted", grouped(count), grouped(expected - count)),
    };
    Check::new(claim, count == expected, grouped(expected), found)
}

/// A fault that was asked for and never hit shows nothing. Where zombies were asked for, none may have got through.
fn fired(run: &Observed) -> Vec<Check> {
    let (wanted, hits) = (&run.wanted, &run.hits);
    let mut checks = vec![enough("kills that hit running work", wanted.kills, hits.kills)];
    let more = [
        ("kills of the database that hit running work", wanted.database_kills, hits.database_kills),
        ("zombies whose work was taken over", wanted.zombies, hits.zombies),
        ("commits that were lost on the way, or their answers", wanted.lost_commits, hits.lost_commits),
    ];
    checks.extend(
        more.iter().filter(|(_, wanted, _)| *wanted > 0).map(|(claim, wanted, hits)| enough(claim, *wanted, *hits)),
    );
    if wanted.zombies > 0 {
        checks.push(Check::equal("claims that a zombie completed after they were taken over", 0, run.doubled));
    }
    checks
}

fn enough(claim: &str, wanted: u64, hits: u64) -> Check {
    let fired = hits >= wanted;
    let found = if fired { hits.to_string() } else { format!("{hits}: the fault never fired often enough") };
    Check::new(claim, fired, format!("{wanted} or more"), found)
}

/// What the run went through, in words.
fn endured(run: &Observed) -> String {
    let Faults { kills, database_kills, zombies, lost_commits } = run.hits;
    let mut words = format!("{kills} of {} kills hit running work", run.kills);
    if database_kills + zombies + lost_commits > 0 {
        let _ = write!(
            words,
            ", and so did {database_kills} kills of the database, {zombies} zombies and {lost_commits} lost commits"
        );
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    const HITS: Faults = Faults { kills: 20, database_kills: 5, zombies: 3, lost_commits: 11 };
    const FINISHED: Observed = Observed {
        contract: Contract::FinishOnce,
        requests: 10_000,
        kills: 23,
        wanted: Faults { kills: 20, database_kills: 5, zombies: 3, lost_commits: 10 },
        hits: HITS,
        doubled: 0,
        accepted: 10_000,
        lost: 0,
        unasked: 0,
        count: 10_000,
        open: 0,
        completed: 10_000,
        in_doubt: 0,
        dead: 0,
        unexplained: 0,
        never_started: 0,
        completed_unstarted: 0,
        started_again: 31,
        uncounted: 0,
        repeated: 0,
        strays: 0,
    };
    const BEGUN: Observed = Observed {
        contract: Contract::BeginOnce,
        count: 9_960,
        completed: 9_960,
        in_doubt: 39,
        dead: 1,
        never_started: 2,
        started_again: 0,
        ..FINISHED
    };

    fn check(run: &Observed, expected: &str) {
        let verdict = judge(run);
        assert!(!verdict.passed, "{verdict:?}");
        assert!(verdict.summary.contains(expected), "{}", verdict.summary);
        assert_eq!(verdict.checks.iter().filter(|check| !check.passed).count(), 1, "{verdict:?}");
    }

    #[test]
    fn exact_passes_however_often_messages_were_started() {
        assert!(judge(&FINISHED).passed);
    }

    #[test]
    fn one_too_few_fails() {
        check(&Observed { count: 9_999, ..FINISHED }, "undershoot: 1 not counted");
    }

    #[test]
    fn one_too_many_fails() {
        check(&Observed { count: 10_001, ..FINISHED }, "overshoot: 1 counted more than once");
    }

    #[test]
    fn a_run_without_its_fault_fails() {
        for hits in [
            Faults { kills: 19, ..HITS },
            Faults { database_kills: 4, ..HITS },
            Faults { zombies: 2, ..HITS },
            Faults { lost_commits: 9, ..HITS },
        ] {
            check(&Observed { hits, ..FINISHED }, "the fault never fired often enough");
        }
    }

    #[test]
    fn a_run_is_not_asked_for_faults_that_nobody_wanted() {
        let wanted = Faults { kills: 20, ..Faults::default() };
        let verdict = judge(&Observed { wanted, hits: wanted, ..FINISHED });
        assert!(verdict.passed && !verdict.checks.iter().any(|check| check.claim.contains("zombie")), "{verdict:?}");
    }

    #[test]
    fn a_zombie_that_got_through_fails() {
        check(&Observed { doubled: 1, ..FINISHED }, "zombie completed");
    }

    #[test]
    fn a_message_nobody_can_account_for_fails() {
        check(&Observed { lost: 1, ..FINISHED }, "lost");
        check(&Observed { unasked: 1, ..FINISHED }, "nobody sent");
        check(&Observed { never_started: 1, ..FINISHED }, "never started");
        check(&Observed { uncounted: 1, ..FINISHED }, "more starts than attempts");
        check(&Observed { repeated: 1, ..FINISHED }, "started again");
        check(&Observed { strays: 1, ..FINISHED }, "does not know");
        check(&Observed { open: 1, ..FINISHED }, "available or running");
    }

    #[test]
    fn begin_once_passes_with_doubts_that_are_accounted_for() {
        assert!(judge(&BEGUN).passed);
    }

    #[test]
    fn begin_once_fails_on_a_second_start() {
        check(&Observed { started_again: 1, ..BEGUN }, "messages started twice");
    }

    #[test]
    fn begin_once_fails_if_a_doubtful_message_counted() {
        check(&Observed { count: 9_961, ..BEGUN }, "overshoot");
        check(&Observed { in_doubt: 38, ..BEGUN }, "completed, in doubt or dead");
        check(&Observed { unexplained: 1, ..BEGUN }, "without a reason");
    }
}
