//! What is tried: every variant, without a crash and with one at each place, and what must come of it. Pure.

use super::super::steps::{Crash, Place};

/// How something is written and then published. `guests/publisher` does what the name says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Variant {
    /// A second write is a uniqueness error.
    Unique,
    /// A second write does nothing.
    Idempotent,
    /// And the publication is recorded, and looked for.
    Recorded,
    /// Write and publication are one commit with the acknowledgement.
    Outbox,
}

/// One message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trial {
    /// Which way to write and publish.
    pub variant: Variant,
    /// Where the host is killed; none: nowhere.
    pub crash: Option<Crash>,
}

impl Variant {
    /// All of them, as the essay has them, and then ours.
    pub const ALL: [Self; 4] = [Self::Unique, Self::Idempotent, Self::Recorded, Self::Outbox];

    /// As the guest spells it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Unique => "unique",
            Self::Idempotent => "idempotent",
            Self::Recorded => "recorded",
            Self::Outbox => "outbox",
        }
    }

    /// Its steps: what it asks of the services, in order.
    #[must_use]
    pub fn steps(self) -> &'static [&'static str] {
        match self {
            Self::Unique | Self::Idempotent => &["write", "publish"],
            Self::Recorded => &["write", "look", "publish", "record"],
            // Nothing of this is outside: the services are only asked so that there is a moment to crash at.
            Self::Outbox => &["write", "publish", "commit"],
        }
    }

    /// Everything that can be tried with it.
    #[must_use]
    pub fn trials(self) -> Vec<Trial> {
        // What is asked of the services by the last one has no effect that could be before or after.
        let is_tried =
            |crash: &Option<Crash>| self != Self::Outbox || crash.is_none_or(|crash| crash.place == Place::Before);
        Crash::all(self.steps()).filter(is_tried).map(|crash| Trial { variant: self, crash }).collect()
    }
}

impl Trial {
    /// All there is.
    #[must_use]
    pub fn all() -> Vec<Self> {
        Variant::ALL.into_iter().flat_map(Variant::trials).collect()
    }

    /// The places that the essay is about, and one of our own.
    #[must_use]
    pub fn telling() -> Vec<Self> {
        let at = |variant, step, place| Self { variant, crash: Some(Crash { step, place }) };
        vec![
            at(Variant::Unique, 2, Place::Before),
            at(Variant::Idempotent, 2, Place::After),
            at(Variant::Recorded, 3, Place::After),
            at(Variant::Outbox, 3, Place::Before),
        ]
    }

    /// Where it crashes, in words.
    #[must_use]
    pub fn place(&self) -> String {
        Crash::says(self.crash, self.variant.steps())
    }

    /// How often the message is published in the end.
    #[must_use]
    pub fn expected(&self) -> u64 {
        let Some(done) = self.crash.map(Crash::done) else { return 1 };
        match self.variant {
            // The second write is refused for ever, whether or not the first run got any further.
            Variant::Unique => match done {
                0 | 2 => 1,
                _ => 0,
            },
            Variant::Idempotent => 1 + u64::from(done >= 2),
            Variant::Recorded => 1 + u64::from(done == 3),
            Variant::Outbox => 1,
        }
    }

    /// What the essay says of it, if it speaks of it.
    #[must_use]
    pub fn essay(&self) -> &'static str {
        let crash = self.crash.map(|crash| (crash.step, crash.place));
        match (self.variant, crash) {
            (Variant::Unique, Some((2, Place::Before))) => "zero messages get published: at most once",
            (Variant::Idempotent, Some((2, Place::After))) => "published multiple times: at least once",
            (Variant::Recorded, Some((3, Place::After))) => "published multiple times: at least once",
            (Variant::Recorded, Some((4, Place::After))) => "we have published already: once",
            (Variant::Outbox, _) => "not in the essay: one commit",
            _ => "",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_variant_of_the_essay_has_a_place_where_it_is_not_once_and_the_outbox_has_none() {
        let counts = |variant: Variant| variant.trials().iter().map(Trial::expected).collect::<Vec<_>>();
        assert_eq!(counts(Variant::Unique), [1, 1, 0, 0, 1]);
        assert_eq!(counts(Variant::Idempotent), [1, 1, 1, 1, 2]);
        assert_eq!(counts(Variant::Recorded), [1, 1, 1, 1, 1, 1, 2, 2, 1]);
        assert_eq!(counts(Variant::Outbox), [1, 1, 1, 1]);
    }

    #[test]
    fn what_the_essay_says_is_what_is_expected() {
        for trial in Trial::all() {
            let says = trial.essay();
            assert!(!says.contains("zero") || trial.expected() == 0, "{trial:?}");
            assert!(!says.contains("multiple") || trial.expected() == 2, "{trial:?}");
        }
        assert!(Trial::telling().iter().all(|trial| Trial::all().contains(trial) && !trial.essay().is_empty()));
    }
}
