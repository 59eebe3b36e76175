//! What is tried: every way to send the mail, without a crash and with one on each side of each step, and what must come of
//! it. Pure.

use super::super::steps::{Crash, Place};

/// How the mail is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// The essay's protocol, started again until it has finished.
    Protocol,
    /// The same, started at most once.
    BeginOnce,
    /// A request in the commit, sent after it, to a provider that looks at no key.
    Deferred,
    /// The same, to a provider that sends one mail per `Idempotency-Key`.
    Keyed,
}

/// One mail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trial {
    /// Which way.
    pub way: Way,
    /// Where the host is killed; none: nowhere.
    pub crash: Option<Crash>,
}

impl Way {
    /// All of them, as the essay has them, and then ours.
    pub const ALL: [Self; 4] = [Self::Protocol, Self::BeginOnce, Self::Deferred, Self::Keyed];

    /// For tables.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Protocol => "protocol, finish-once",
            Self::BeginOnce => "protocol, begin-once",
            Self::Deferred => "deferred-http",
            Self::Keyed => "deferred-http, keyed",
        }
    }

    /// Its steps: what it asks of the services, in order.
    #[must_use]
    pub fn steps(self) -> &'static [&'static str] {
        match self {
            Self::Protocol | Self::BeginOnce => &["lock", "check", "send", "record", "unlock"],
            Self::Deferred | Self::Keyed => &["send"],
        }
    }

    /// Everything that can be tried with it.
    #[must_use]
    pub fn trials(self) -> Vec<Trial> {
        Crash::all(self.steps()).map(|crash| Trial { way: self, crash }).collect()
    }
}

impl Trial {
    /// All there is.
    #[must_use]
    pub fn all() -> Vec<Self> {
        Way::ALL.into_iter().flat_map(Way::trials).collect()
    }

    /// One for each number of mails, and ours.
    #[must_use]
    pub fn telling() -> Vec<Self> {
        let at = |way, step, place| Self { way, crash: Some(Crash { step, place }) };
        vec![
            at(Way::Protocol, 3, Place::After),
            at(Way::BeginOnce, 3, Place::Before),
            at(Way::Deferred, 1, Place::After),
            at(Way::Keyed, 1, Place::After),
        ]
    }

    /// Where it crashes, in words.
    #[must_use]
    pub fn place(&self) -> String {
        Crash::says(self.crash, self.way.steps())
    }

    /// How often the mail is sent in the end.
    #[must_use]
    pub fn expected(&self) -> u64 {
        let Some(done) = self.crash.map(Crash::done) else { return 1 };
        match self.way {
            // Sent, and not recorded: the next attempt sends again.
            Way::Protocol => 1 + u64::from(done == 3),
            Way::BeginOnce => u64::from(done >= 3),
            Way::Deferred => 1 + u64::from(done == 1),
            Way::Keyed => 1,
        }
    }

    /// Where the message must end.
    #[must_use]
    pub fn state(&self) -> &'static str {
        if self.way == Way::BeginOnce && self.crash.is_some() { "in-doubt" } else { "completed" }
    }

    /// What the essay says of it, if it speaks of it.
    #[must_use]
    pub fn essay(&self) -> &'static str {
        match (self.way, self.crash.map(Crash::done)) {
            (Way::Protocol, Some(2 | 3)) => "an orphaned lock and no record: the e-mail might have been sent… or not",
            (Way::BeginOnce, Some(_)) => "begins exactly once: zero or one",
            (Way::Keyed, _) => "make the operation idempotent",
            _ => "",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_protocol_has_one_gap_and_only_a_key_closes_it() {
        let counts = |way: Way| way.trials().iter().map(Trial::expected).collect::<Vec<_>>();
        assert_eq!(counts(Way::Protocol), [1, 1, 1, 1, 1, 1, 2, 2, 1, 1, 1]);
        assert_eq!(counts(Way::BeginOnce), [1, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1]);
        assert_eq!(counts(Way::Deferred), [1, 1, 2]);
        assert_eq!(counts(Way::Keyed), [1, 1, 1]);
        let telling: Vec<_> = Trial::telling().iter().map(Trial::expected).collect();
        assert_eq!(telling, [2, 0, 2, 1], "two, none, and one");
        assert!(Trial::telling().iter().all(|trial| Trial::all().contains(trial)));
    }
}
