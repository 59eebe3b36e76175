//! The verdict on a matrix: a pure function of what was counted. One cell outside of what is allowed is a broken promise,
//! and one fault that did not fire a run that has shown nothing.

use super::super::{Check, Verdict};
use super::allowed::{Class, allowed_in, ends};
use super::cells::{Cell, Harm};
use super::measure::Seen;
use super::trial::Outcome;
use crate::crash::Point;
use crate::message::Contract;

/// How many effects of a message are outside of what is allowed, of one class.
pub(super) fn excess(cell: Cell, class: Class, seen: &Seen) -> u64 {
    seen.counts_of(class).filter(|count| !allowed_in(cell, class, &seen.state).contains(count)).count() as u64
}

/// Whether the ledger has an end for every call, and bounds that hold what the server has seen.
pub(super) fn is_bounded(seen: &Seen) -> bool {
    seen.intended == 0 && (seen.bounds.least..=seen.bounds.most).contains(&seen.outside())
}

/// Judges all cells of a run.
pub(super) fn judge(outcomes: &[Outcome]) -> Verdict {
    let sum = |of: &dyn Fn(Cell, &Seen) -> u64| -> u64 {
        outcomes.iter().flat_map(|o| o.messages.iter().map(|seen| of(o.cell, seen))).sum()
    };
    let hits = |contract: Contract| {
        outcomes.iter().filter(move |outcome| outcome.cell.contract == contract).filter_map(Outcome::hit)
    };
    let wrong_end = outcomes.iter().filter(|o| o.hit().is_some_and(|hit| !ends(o.cell).contains(&hit.state.as_str())));
    // Whoever recovers dies with what it has begun itself.
    let alone = outcomes.iter().filter(|outcome| outcome.cell.point != Point::RecoverFound);
    let bystanders = alone.flat_map(|outcome| outcome.messages.iter().skip(1));
    let count = |things: &mut dyn Iterator<Item = &Seen>| things.count() as u64;
    let never = count(&mut hits(Contract::BeginOnce).filter(|seen| seen.outside() == 0));
    let twice = count(&mut hits(Contract::FinishOnce).filter(|seen| seen.outside() >= 2));
    let again = outcomes.iter().filter_map(Outcome::hit).filter(|seen| seen.deferred() >= 2).count() as u64;
    let shows = |claim: &str, found: u64| Check::new(claim, found > 0, "at least 1 cell", format!("{found} cells"));
    let checks = vec![
        Check::new(
            "every cell was tried to its end",
            !outcomes.is_empty() && outcomes.iter().all(|outcome| outcome.trouble.is_none()),
            format!("{} cells", outcomes.len()),
            troubles(outcomes),
        ),
        Check::equal("faults that fired", outcomes.len() as u64, outcomes.iter().filter(|o| o.fired).count() as u64),
        Check::equal(
            "transactional effects that happened twice",
            0,
            sum(&|_, seen| u64::from(seen.counts_of(Class::Transactional).any(|count| count > 1))),
        ),
        Check::equal(
            "transactional effects outside of what is allowed",
            0,
            sum(&|cell, seen| excess(cell, Class::Transactional, seen)),
        ),
        Check::equal(
            "deferred requests outside of what is allowed",
            0,
            sum(&|cell, seen| excess(cell, Class::Deferred, seen)),
        ),
        Check::equal(
            "outside effects outside of what is allowed",
            0,
            sum(&|cell, seen| excess(cell, Class::Outside, seen)),
        ),
        Check::equal("messages that ended as they must not", 0, wrong_end.count() as u64),
        Check::equal(
            "other messages that noticed",
            0,
            bystanders.filter(|seen| seen.state != "completed").count() as u64,
        ),
        Check::equal("messages that paid for another one of their commit which trapped", 0, paid(outcomes)),
        Check::equal("calls that the ledger's bounds do not hold", 0, sum(&|_, seen| u64::from(!is_bounded(seen)))),
        Check::equal("messages whose calls had different keys", 0, sum(&|_, seen| u64::from(!seen.one_key))),
        Check::equal(
            "messages completed by a claim that was taken over",
            0,
            sum(&|_, seen| u64::from(seen.is_overtaken())),
        ),
        shows("begin-once: an outside call that never happened", never),
        shows("finish-once: an outside call that happened twice", twice),
        shows("a deferred request that was sent twice", again),
    ];
    let shown = format!(
        "{} faults, and every transactional effect of a completed message happened exactly once. The outside call did not: under \
         finish-once it happened twice in {twice} cells, under begin-once not at all in {never}. No engine can have both.",
        outcomes.len()
    );
    Verdict::of(checks, shown)
}

/// Nobody died, so whoever shared the transaction that came to nothing must have run again on the same attempt.
fn paid(outcomes: &[Outcome]) -> u64 {
    let beside =
        outcomes.iter().filter(|outcome| outcome.cell.harm == Harm::Trap).flat_map(|o| o.messages.iter().skip(1));
    beside.filter(|seen| seen.attempts.len() != 1).count() as u64
}

fn troubles(outcomes: &[Outcome]) -> String {
    let troubles: Vec<String> =
        outcomes.iter().filter(|outcome| outcome.trouble.is_some()).map(Outcome::line).collect();
    match troubles.as_slice() {
        [] => format!("{} cells", outcomes.len()),
        [first, more @ ..] => format!("{} were not; the first: {first}", more.len() + 1),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::super::client::{Attempt, Bounds};
    use super::*;

    fn outcome(contract: Contract, state: &str, effects: u64, outside: u64, most: u64) -> Outcome {
        let seen = Seen {
            id: "m".into(),
            state: state.into(),
            counts: [effects, effects, effects, effects, effects, 2 * effects, outside],
            answered_by: (state == "completed").then_some(1),
            attempts: vec![Attempt { attempt: 1, outcome: state.into(), ..Attempt::default() }],
            one_key: true,
            bounds: Bounds { least: 0, most },
            intended: 0,
        };
        let cell = Cell { shared: false, point: Point::CallSent, harm: Harm::Kill, contract, batch: false };
        Outcome { cell, fired: true, messages: vec![seen], trouble: None, took: Duration::ZERO }
    }

    fn sound() -> Vec<Outcome> {
        vec![
            outcome(Contract::FinishOnce, "completed", 1, 2, 2),
            outcome(Contract::BeginOnce, "in-doubt", 0, 0, 1),
            outcome(Contract::BeginOnce, "in-doubt", 0, 1, 1),
        ]
    }

    /// Says the claims that fail when something is wrong with one cell more.
    fn missed(wrong: Outcome) -> Vec<String> {
        let mut outcomes = sound();
        outcomes.push(wrong);
        judge(&outcomes).checks.into_iter().filter(|check| !check.passed).map(|check| check.claim).collect()
    }

    #[test]
    fn what_is_allowed_passes() {
        let verdict = judge(&sound());
        assert!(verdict.passed, "{verdict:?}");
    }

    #[test]
    fn each_broken_promise_is_named() {
        let twice = missed(outcome(Contract::FinishOnce, "completed", 2, 1, 1));
        assert!(twice.iter().any(|claim| claim.contains("happened twice")), "{twice:?}");
        let not_at_all = missed(outcome(Contract::FinishOnce, "completed", 0, 1, 1));
        assert!(not_at_all.iter().any(|claim| claim.contains("transactional effects outside")), "{not_at_all:?}");
        let dead = missed(outcome(Contract::FinishOnce, "dead", 0, 1, 1));
        assert_eq!(dead, ["messages that ended as they must not"]);
        let again = missed(outcome(Contract::BeginOnce, "in-doubt", 0, 2, 2));
        assert_eq!(again, ["outside effects outside of what is allowed"]);
        let unwritten = missed(outcome(Contract::BeginOnce, "in-doubt", 0, 1, 0));
        assert_eq!(unwritten, ["calls that the ledger's bounds do not hold"]);
        let mut older = outcome(Contract::FinishOnce, "completed", 1, 2, 2);
        older.messages[0].attempts.push(Attempt { attempt: 2, outcome: "lost-lease".into(), ..Attempt::default() });
        assert_eq!(missed(older), ["messages completed by a claim that was taken over"]);
        let mut another = outcome(Contract::FinishOnce, "completed", 1, 2, 2);
        another.messages[0].answered_by = Some(2);
        assert_eq!(missed(another), ["messages completed by a claim that was taken over"]);
        let mut unfired = outcome(Contract::FinishOnce, "completed", 1, 1, 1);
        (unfired.fired, unfired.trouble) = (false, Some("it did not fire".into()));
        assert_eq!(missed(unfired), ["every cell was tried to its end", "faults that fired"]);
    }

    #[test]
    fn whoever_pays_for_another_message_of_its_commit_is_a_broken_promise() {
        let of_batch = |attempts: u32| {
            let mut batch = outcome(Contract::FinishOnce, "completed", 1, 0, 0);
            (batch.cell.batch, batch.cell.harm) = (true, Harm::Trap);
            let mut hit = batch.messages[0].clone();
            hit.counts[5] = 0; // Nobody asked for a request.
            let mut beside = hit.clone();
            beside.attempts = (1..=attempts)
                .map(|n| Attempt { attempt: n, outcome: "trapped".into(), ..Attempt::default() })
                .collect();
            beside.attempts[attempts as usize - 1].outcome = "completed".into();
            beside.answered_by = Some(attempts);
            batch.messages = vec![hit, beside];
            batch
        };
        assert_eq!(missed(of_batch(1)), [""; 0]);
        assert_eq!(missed(of_batch(2)), ["messages that paid for another one of their commit which trapped"]);
        let mut asked = of_batch(1);
        asked.messages[0].counts[6] = 1;
        asked.messages[0].bounds.most = 1;
        assert_eq!(missed(asked), ["outside effects outside of what is allowed"]);
    }

    #[test]
    fn a_matrix_that_shows_nothing_fails() {
        let claims = judge(&[outcome(Contract::FinishOnce, "completed", 1, 1, 1)]).checks;
        assert_eq!(claims.iter().filter(|check| !check.passed).count(), 2);
        assert!(!judge(&[]).passed);
    }
}
