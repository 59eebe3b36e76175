//! What a run left behind, joined: messages as the database has them, starts as the witness saw them.

use std::collections::{BTreeMap, HashSet};

use super::super::client::{Counts, Message};
use super::super::witness::Witness;
use super::progress::Sample;
use super::verdict::Observed;
use super::{Faults, Lost, Options, Sent};

/// Everything that a verdict and a report are made of.
pub(super) struct Evidence {
    pub(super) sent: Sent,
    pub(super) samples: Vec<Sample>,
    pub(super) witness: Witness,
    pub(super) counts: Counts,
    pub(super) messages: Vec<Message>,
    pub(super) count: u64,
    /// How the claims ended that were taken over from zombies, and how many of each.
    pub(super) taken: BTreeMap<String, u64>,
    pub(super) lost: Lost,
}

impl Evidence {
    /// Faults that hit work.
    pub(super) fn hits(&self) -> Faults {
        self.sent.done.hits(self.lost.fired.all())
    }

    /// Claims taken over from zombies that ended so.
    pub(super) fn taken_as(&self, outcome: &str) -> u64 {
        self.taken.get(outcome).copied().unwrap_or(0)
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
            kills: self.sent.done.kills.len() as u64,
            wanted: options.faults,
            hits: self.hits(),
            doubled: self.taken_as("completed"),
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
            strays: number(self.witness.messages().filter(|id| !listed.contains(id))),
        }
    }
}

fn number(things: impl Iterator) -> u64 {
    things.count() as u64
}
