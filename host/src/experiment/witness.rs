//! Starts of guests, as the witness saw them: a file outside the database.
//!
//! SEMEL_WITNESS names a file that the host under test appends `<message id> <attempt>` to when a guest's code begins
//! to run. No rollback takes a line back, which is why starts are counted there and never read from `attempt`.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use anyhow::Context as _;

/// Starts by message, in the order in which they happened.
#[derive(Debug, Default)]
pub(super) struct Witness {
    attempts: HashMap<String, Vec<u64>>,
}

impl Witness {
    pub(super) fn read(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        Self::parse(&text).with_context(|| format!("cannot make sense of {}", path.display()))
    }

    fn parse(text: &str) -> anyhow::Result<Self> {
        let mut attempts: HashMap<String, Vec<u64>> = HashMap::new();
        for line in text.lines() {
            let parts = line.split_once(' ').and_then(|(id, attempt)| Some((id, attempt.parse().ok()?)));
            let (id, attempt) = parts.with_context(|| format!("`{line}` is not a message's id and an attempt"))?;
            attempts.entry(id.to_owned()).or_default().push(attempt);
        }
        Ok(Self { attempts })
    }

    /// Messages that were started.
    pub(super) fn messages(&self) -> impl Iterator<Item = &str> {
        self.attempts.keys().map(String::as_str)
    }

    /// How often a message was started.
    pub(super) fn starts(&self, id: &str) -> u64 {
        self.attempts.get(id).map_or(0, |attempts| attempts.len() as u64)
    }

    /// Whether one attempt at a message was started more than once.
    pub(super) fn repeats_an_attempt(&self, id: &str) -> bool {
        let attempts = self.attempts.get(id).map_or(&[][..], Vec::as_slice);
        attempts.iter().collect::<HashSet<_>>().len() < attempts.len()
    }
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
    fn a_torn_line_is_not_passed_over() {
        assert!(Witness::parse("a 1\nb").is_err());
    }
}
