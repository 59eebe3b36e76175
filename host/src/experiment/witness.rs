//! Starts of guests, as the witness saw them: a file outside the database.
//!
//! SEMEL_WITNESS names a file that the host under test appends `<message id> <attempt>` to when a guest's code begins
//! to run, with ` together` behind it if others have a part in its transaction. No rollback takes a line back, which is why
//! starts are counted there and never read from `attempt`.
//!
//! Messages that share a commit may come to nothing together, and then they run without the one that was to blame, and at last
//! alone, under the claims that they have: such a start was in vain, and the attempt starts once more. It is not counted; that
//! there are [`TOGETHER`] at most, and that they are followed by one alone at most, is looked at.

use std::collections::HashMap;
use std::path::Path;

use anyhow::Context as _;

/// How often an attempt may start together with others: without a first one and then a second one that was to blame.
const TOGETHER: usize = 3;

/// Starts by message, in the order in which they happened.
#[derive(Debug, Default)]
pub(super) struct Witness {
    starts: HashMap<String, Vec<Start>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Start {
    attempt: u64,
    together: bool,
}

impl Witness {
    pub(super) fn read(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        Self::parse(&text).with_context(|| format!("cannot make sense of {}", path.display()))
    }

    fn parse(text: &str) -> anyhow::Result<Self> {
        let mut starts: HashMap<String, Vec<Start>> = HashMap::new();
        for line in text.lines() {
            let words: Vec<&str> = line.split(' ').collect();
            let (id, attempt, together) = match words[..] {
                [id, attempt] => (id, attempt, false),
                [id, attempt, "together"] => (id, attempt, true),
                _ => ("", "", false),
            };
            let attempt = attempt.parse();
            let attempt = attempt.with_context(|| format!("`{line}` is not a message's id and an attempt"))?;
            starts.entry(id.to_owned()).or_default().push(Start { attempt, together });
        }
        Ok(Self { starts })
    }

    /// Messages that were started.
    pub(super) fn messages(&self) -> impl Iterator<Item = &str> {
        self.starts.keys().map(String::as_str)
    }

    /// How often a message was started, and not in vain.
    pub(super) fn starts(&self, id: &str) -> u64 {
        let starts = self.of(id);
        starts.iter().enumerate().filter(|(place, start)| !is_in_vain(start, &starts[place + 1..])).count() as u64
    }

    /// How often a message was started beside others in one transaction.
    pub(super) fn starts_together(&self, id: &str) -> u64 {
        self.of(id).iter().filter(|start| start.together).count() as u64
    }

    /// Whether one attempt at a message was started more often than it may be: a few times together with others, and if that
    /// was in vain, once alone.
    pub(super) fn repeats_an_attempt(&self, id: &str) -> bool {
        let starts = self.of(id);
        let again = |(place, start): (usize, &Start)| {
            let before = starts[..place].iter().filter(|earlier| earlier.attempt == start.attempt);
            let (together, alone): (Vec<&Start>, Vec<&Start>) = before.partition(|earlier| earlier.together);
            !alone.is_empty() || (start.together && together.len() >= TOGETHER)
        };
        starts.iter().enumerate().any(again)
    }

    fn of(&self, id: &str) -> &[Start] {
        self.starts.get(id).map_or(&[], Vec::as_slice)
    }
}

/// What was begun together with others came to nothing: it began once more.
fn is_in_vain(start: &Start, later: &[Start]) -> bool {
    start.together && later.iter().any(|later| later.attempt == start.attempt)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_witness_counts_starts_and_sees_an_attempt_that_started_twice() {
        let witness = Witness::parse("a 1\nb 1\na 2\nb 1\n").expect("these are starts");
        assert_eq!(["a", "b", "c"].map(|id| witness.starts(id)), [2, 2, 0]);
        assert_eq!(["a", "b", "c"].map(|id| witness.repeats_an_attempt(id)), [false, true, false]);
    }

    #[test]
    fn starts_in_vain_do_not_count_and_there_are_three_at_most() {
        let witness = |lines: &[&str]| {
            let lines: String = lines.iter().map(|line| format!("a {line}\n")).collect();
            let witness = Witness::parse(&lines).expect("these are starts");
            (witness.starts("a"), witness.starts_together("a"), witness.repeats_an_attempt("a"))
        };
        assert_eq!(witness(&["1 together"]), (1, 1, false), "it shared a commit, or died with its host");
        assert_eq!(witness(&["1 together", "1"]), (1, 1, false), "in vain, and alone");
        assert_eq!(witness(&["1 together", "1", "2"]), (2, 1, false));
        assert_eq!(witness(&["1 together", "2"]), (2, 1, false), "its host was killed in between");
        assert_eq!(witness(&["1 together", "1 together"]), (1, 2, false), "another one was to blame");
        assert_eq!(witness(&["1 together", "1 together", "1 together", "1"]), (1, 3, false));
        assert!(witness(&["1 together", "1 together", "1 together", "1 together"]).2);
        assert!(witness(&["1 together", "1", "1"]).2);
        assert!(witness(&["1", "1 together"]).2);
    }

    #[test]
    fn a_torn_line_is_not_passed_over() {
        for torn in ["b", "b 1 toge", "b 1 together 2", "b x"] {
            assert!(Witness::parse(&format!("a 1\n{torn}")).is_err(), "{torn}");
        }
    }
}
