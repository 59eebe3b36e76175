//! What a run left behind, joined: messages as the database has them, starts as the witness saw them.
//!
//! The witness is a file that the host under test appends `<message id> <attempt>` to when a guest's code begins
//! to run. No rollback takes a line back, which is why starts are counted there and never read from `attempt`.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use anyhow::Context as _;

use super::super::client::{Counts, Message};
use super::progress::Sample;
use super::verdict::Observed;
use super::{Options, Sent};

/// Everything that a verdict and a report are made of.
pub(super) struct Evidence {
    pub(super) sent: Sent,
    pub(super) samples: Vec<Sample>,
    pub(super) witness: Witness,
    pub(super) counts: Counts,
    pub(super) messages: Vec<Message>,
    pub(super) count: u64,
}

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

    /// How often a message was started.
    pub(super) fn starts(&self, id: &str) -> u64 {
        self.attempts.get(id).map_or(0, |attempts| attempts.len() as u64)
    }

    fn repeats_an_attempt(&self, id: &str) -> bool {
        let attempts = self.attempts.get(id).map_or(&[][..], Vec::as_slice);
        attempts.iter().collect::<HashSet<_>>().len() < attempts.len()
    }
}

impl Evidence {
    /// Kills after which rows were `running`.
    pub(super) fn hits(&self) -> u64 {
        number(self.sent.kills.iter().filter(|kill| kill.running > 0))
    }

    /// Counted from the listing, message by message; the host's own totals are only for progress.
    pub(super) fn observed(&self, options: &Options) -> Observed {
        let messages = &self.messages;
        let listed: HashSet<&str> = messages.iter().map(|message| message.id.as_str()).collect();
        let accepted: HashSet<&str> = self.sent.accepted.iter().map(|accepted| accepted.id.as_str()).collect();
        let starts = |message: &Message| self.witness.starts(&message.id);
        let in_state = |state: &str| number(messages.iter().filter(|message| message.state == state));
        let unexplained = |message: &&Message| message.state == "dead" && message.last_error.is_none();
        Observed {
            contract: options.contract,
            requests: options.messages,
            kills: self.sent.kills.len() as u64,
            kills_wanted: options.kills,
            hits: self.hits(),
            accepted: accepted.len() as u64,
            lost: number(accepted.difference(&listed)),
            unasked: number(listed.difference(&accepted)),
            count: self.count,
            open: in_state("available") + in_state("running"),
            completed: in_state("completed"),
            in_doubt: in_state("in-doubt"),
            dead: in_state("dead"),
            unexplained: number(messages.iter().filter(unexplained)),
            never_started: number(messages.iter().filter(|message| starts(message) == 0)),
            completed_unstarted: number(
                messages.iter().filter(|message| message.state == "completed" && starts(message) == 0),
            ),
            started_again: number(messages.iter().filter(|message| starts(message) > 1)),
            uncounted: number(messages.iter().filter(|message| starts(message) > message.attempt)),
            repeated: number(messages.iter().filter(|message| self.witness.repeats_an_attempt(&message.id))),
            strays: number(self.witness.attempts.keys().filter(|id| !listed.contains(id.as_str()))),
        }
    }
}

fn number(things: impl Iterator) -> u64 {
    things.count() as u64
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
