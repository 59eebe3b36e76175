//! What the two contracts allow: the table of the README, as pure functions.

use std::ops::RangeInclusive;

use super::cells::{Cell, Harm};
use crate::crash::Point;
use crate::message::Contract;

/// What can be promised of an effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    /// Committed with the acknowledgement, or not at all.
    Transactional,
    /// Asked for in the commit, and sent after it until it is answered.
    Deferred,
    /// Cannot be taken back.
    Outside,
}

/// How often an effect may have happened of a message that ended so, whatever was done to hosts and databases.
pub(super) fn allowed(contract: Contract, class: Class, state: &str) -> RangeInclusive<u64> {
    match (contract, class, state == "completed") {
        (_, Class::Transactional, true) => 1..=1,
        (_, Class::Deferred, true) => 1..=u64::MAX,
        (_, Class::Transactional | Class::Deferred, false) => 0..=0,
        (Contract::FinishOnce, Class::Outside, true) => 1..=u64::MAX,
        (Contract::FinishOnce, Class::Outside, false) => 0..=u64::MAX,
        (Contract::BeginOnce, Class::Outside, true) => 1..=1,
        (Contract::BeginOnce, Class::Outside, false) => 0..=1,
    }
}

/// The same in a cell: a message that shares a commit asks nobody outside.
pub(super) fn allowed_in(cell: Cell, class: Class, state: &str) -> RangeInclusive<u64> {
    if cell.batch && class != Class::Transactional { 0..=0 } else { allowed(cell.contract, class, state) }
}

/// How the message that was hit may end.
pub(super) fn ends(cell: Cell) -> &'static [&'static str] {
    let Cell { point, harm, contract, .. } = cell;
    if contract == Contract::FinishOnce || cell.is_of_relay() {
        return &["completed"];
    }
    match (point, harm) {
        // The mark was committed, and the host does not know it: it does not start. The price of at most once.
        (Point::BeginBeforeCommit, Harm::CutAfter) => &["in-doubt"],
        // It begins while the database comes back, and cannot go on.
        (Point::ClaimCommitted, Harm::DatabaseKill) => &["completed", "in-doubt", "dead"],
        (point, _) if point <= Point::BeginBeforeCommit => &["completed"],
        // Usually it runs, but it may be about to begin.
        (Point::RenewDue, Harm::Kill | Harm::Power) => &["completed", "in-doubt"],
        (_, Harm::Unanswered) => &["dead"],
        (Point::Acknowledged, Harm::CutAfter) | (Point::Committed, _) => &["completed"],
        (_, Harm::CutBefore | Harm::DatabaseKill) => &["dead", "in-doubt"],
        (Point::CommitSent, _) => &["completed", "in-doubt"],
        (Point::RecoverFound, _) | (_, Harm::Kill | Harm::Power | Harm::Overtaken) => &["in-doubt"],
        // If nobody has taken it over, a host that was frozen goes on, or finds that the run's time is over.
        (_, Harm::Stop) => &["completed", "in-doubt", "dead"],
        (_, Harm::CutAfter) => &["completed", "in-doubt"],
        (_, Harm::Trap) => &["dead"],
    }
}

#[cfg(test)]
mod tests {
    use super::Class::{Deferred, Outside, Transactional};
    use super::Contract::{BeginOnce, FinishOnce};
    use super::*;

    #[test]
    fn the_contracts_allow_what_the_readme_says() {
        for (contract, class, state, least, most) in [
            (FinishOnce, Transactional, "completed", 1, 1),
            (FinishOnce, Transactional, "dead", 0, 0),
            (FinishOnce, Deferred, "completed", 1, u64::MAX),
            (FinishOnce, Deferred, "available", 0, 0),
            (FinishOnce, Outside, "completed", 1, u64::MAX),
            (FinishOnce, Outside, "available", 0, u64::MAX),
            (BeginOnce, Transactional, "completed", 1, 1),
            (BeginOnce, Transactional, "in-doubt", 0, 0),
            (BeginOnce, Deferred, "completed", 1, u64::MAX),
            (BeginOnce, Deferred, "in-doubt", 0, 0),
            (BeginOnce, Outside, "completed", 1, 1),
            (BeginOnce, Outside, "in-doubt", 0, 1),
            (BeginOnce, Outside, "dead", 0, 1),
        ] {
            assert_eq!(allowed(contract, class, state), least..=most, "{contract:?} {class:?} {state}");
        }
    }

    #[test]
    fn what_has_begun_and_has_no_end_is_in_doubt() {
        let ends = |contract, point, harm| super::ends(Cell { shared: true, point, harm, contract, batch: false });
        assert_eq!(ends(FinishOnce, Point::CallSent, Harm::Kill), ["completed"]);
        assert_eq!(ends(BeginOnce, Point::ClaimCommitted, Harm::Kill), ["completed"]);
        assert_eq!(ends(BeginOnce, Point::BeginBeforeCommit, Harm::Kill), ["completed"]);
        assert_eq!(ends(BeginOnce, Point::BeginBeforeCommit, Harm::CutBefore), ["completed"]);
        assert_eq!(ends(BeginOnce, Point::BeginBeforeCommit, Harm::CutAfter), ["in-doubt"]);
        for point in Point::ALL.iter().filter(|point| (Point::BeginCommitted..=Point::Acknowledged).contains(*point)) {
            assert_eq!(ends(BeginOnce, *point, Harm::Kill).last(), Some(&"in-doubt"), "{point:?}");
        }
        assert_eq!(ends(BeginOnce, Point::Committed, Harm::Kill), ["completed"]);
        assert_eq!(ends(BeginOnce, Point::RelaySent, Harm::Kill), ["completed"]);
    }
}
