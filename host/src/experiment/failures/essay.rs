//! The essay's list of what can go wrong with a message, each line of it real, and what it must end in. Pure.
//!
//! From "Why can't we have exactly-once message processing?": a function that is called exactly once may not finish, and one that
//! is to finish exactly once may begin more often. What ends the run alone is known, recorded, and rolled back. What ends the
//! process leaves no record: then the contract decides what becomes of the message. What the loss of power finds committed stays.

use super::super::Check;
use crate::crash::Point;
use crate::message::Contract;

/// Of a message whose failure repeats itself.
pub(super) const ATTEMPTS: u64 = 2;

/// What happens while the function runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// `misbehave` does this; the run ends so, and the host lives.
    Run { order: &'static str, end: &'static str },
    /// The host's process ends.
    Process(Death),
    /// The host's machine loses power at this point of the run: the process ends, and of its files only what was synced is left.
    Power(Point),
}

/// How a process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Death {
    /// It aborts itself.
    Abort,
    /// It gets no more memory.
    Memory,
    /// It touches what is not there.
    Segfault,
    /// Somebody ends it.
    Kill,
}

/// One line of the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Line {
    /// The essay's words.
    pub(super) says: &'static str,
    /// What is done here.
    pub(super) done: &'static str,
    pub(super) fault: Fault,
}

const POWER: &str = "Someone might power off the machine in the middle of it";
const THROWN: &str = "The function doesn't complete because an exception was thrown";
const LOOP: &str = "The function ends up in an infinite loop";
const LATE: &str = "The function does finish, but an unknown amount of time later";
const MISSING: &str = "The function cannot access the resources it needs";
const PANIC: &str = "The process exits because of an uncaught exception or panic";
const MEMORY: &str = "The OS kills the process because it was out of memory …";
const SEGFAULT: &str = "… or segfaulted";
const KILL: &str = "The OS kills the process in response to a SIGKILL signal";

const fn run(says: &'static str, done: &'static str, order: &'static str, end: &'static str) -> Line {
    Line { says, done, fault: Fault::Run { order, end } }
}

const fn process(says: &'static str, done: &'static str, death: Death) -> Line {
    Line { says, done, fault: Fault::Process(death) }
}

const fn power(done: &'static str, point: Point) -> Line {
    Line { says: POWER, done, fault: Fault::Power(point) }
}

/// The list, in the essay's order.
pub(super) const ALL: [Line; 12] = [
    power("the host loses power while the guest runs", Point::RunWritten),
    power("the host loses power when the run is committed", Point::Committed),
    run(THROWN, "the guest panics", "panic", "trapped"),
    run(LOOP, "the guest computes for ever", "loop", "timed-out"),
    run(LATE, "the guest needs longer than its hard timeout", "sleep-loop", "timed-out"),
    run(MISSING, "the guest uses a table that is not there", "missing", "failed"),
    run(PANIC, "the host panics in a call of the guest", "log", "host-failed"),
    process(PANIC, "the host aborts (SIGABRT)", Death::Abort),
    run(MEMORY, "the guest takes all memory that it gets", "allocate", "out-of-memory"),
    process(MEMORY, "the host is refused all further memory", Death::Memory),
    process(SEGFAULT, "the host gets SIGSEGV", Death::Segfault),
    process(KILL, "the host gets SIGKILL", Death::Kill),
];

/// Where a message ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct End {
    /// Its state; of a dead one, the reason too; `lost` if nobody knows it.
    pub(super) state: String,
    /// How often its code began to run, and not in vain beside others in one transaction.
    pub(super) starts: u64,
    /// Rows that it left.
    pub(super) effects: u64,
}

/// A line under a contract.
#[derive(Debug, Clone)]
pub(super) struct Row {
    pub(super) line: Line,
    pub(super) contract: Contract,
    /// The process ended as it was to, or the run did.
    pub(super) fired: bool,
    pub(super) end: End,
}

impl Line {
    /// What the contracts promise.
    pub(super) fn expected(&self, contract: Contract) -> End {
        let end = |state: String, starts, effects| End { state, starts, effects };
        match (self.fault, contract) {
            (Fault::Run { end: reason, .. }, Contract::FinishOnce) => end(format!("dead: {reason}"), ATTEMPTS, 0),
            (Fault::Run { end: reason, .. }, Contract::BeginOnce) => end(format!("dead: {reason}"), 1, 0),
            (Fault::Power(Point::Committed), _) => end("completed".to_owned(), 1, 1),
            (Fault::Process(_) | Fault::Power(_), Contract::FinishOnce) => end("completed".to_owned(), 2, 1),
            (Fault::Process(_) | Fault::Power(_), Contract::BeginOnce) => end("in-doubt".to_owned(), 1, 0),
        }
    }
}

/// The checks on what was seen.
pub(super) fn checks(rows: &[Row]) -> Vec<Check> {
    let unfired = rows.iter().filter(|row| !row.fired).map(|row| row.line.done);
    let wrong = rows.iter().filter(|row| row.end != row.line.expected(row.contract)).map(|row| {
        let end = &row.end;
        format!(
            "{}, {}: {}, {} starts, {} effects",
            row.line.done,
            row.contract.as_str(),
            end.state,
            end.starts,
            end.effects
        )
    });
    vec![
        Check::equal("lines of the essay's list, under both contracts", 2 * ALL.len() as u64, rows.len() as u64),
        none("of these, failures that did not happen", unfired.map(str::to_owned).collect()),
        none("of these, messages that ended otherwise than their contract says", wrong.collect()),
    ]
}

fn none(claim: &str, found: Vec<String>) -> Check {
    let said = if found.is_empty() { "none".to_owned() } else { found.join("; ") };
    Check::new(claim, found.is_empty(), "none", said)
}

/// What must be seen.
#[cfg(test)]
pub(super) fn good() -> Vec<Row> {
    let row = |line: Line, contract| Row { line, contract, fired: true, end: line.expected(contract) };
    ALL.into_iter()
        .flat_map(|line| [Contract::FinishOnce, Contract::BeginOnce].map(|contract| row(line, contract)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::super::Verdict;
    use super::*;

    #[test]
    fn every_way_to_be_wrong_fails() {
        let verdict = |rows: &[Row]| Verdict::of(checks(rows), String::new());
        assert!(verdict(&good()).passed, "{}", verdict(&good()).summary);
        let check = |what: &str, change: &dyn Fn(&mut Vec<Row>)| {
            let mut rows = good();
            change(&mut rows);
            let verdict = verdict(&rows);
            assert!(!verdict.passed && verdict.summary.contains(what), "{what}: {}", verdict.summary);
        };
        check("under both contracts", &|rows| drop(rows.pop()));
        check("did not happen", &|rows| rows[3].fired = false);
        check("starts", &|rows| rows[5].end.starts = 2);
        check("effects", &|rows| rows[22].end.effects = 2);
        check("in-doubt", &|rows| rows[22].end.state = "in-doubt".into());
        check("committed, begin-once: lost", &|rows| rows[3].end.state = "lost".into());
    }
}
