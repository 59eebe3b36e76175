//! The decision after a run: pure, so that every rule about retries and dead letters can be read and tested here.
//!
//! Before it: [`crate::engine`] ran the guest and says how that ended. After it: [`crate::worker`] does what the
//! settlement says. Nothing else in the program decides about retries or dead letters.

use std::time::Duration;

use crate::manifest::{Backoff, Manifest};
use crate::message::{Contract, Outcome};

/// What to do with a message after a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Settlement {
    /// Commit the effects with the acknowledgement.
    Commit,
    /// Roll back and make it available again after this time.
    Retry {
        /// Time to wait.
        after: Duration,
    },
    /// Roll back and give it up.
    Bury,
}

impl Settlement {
    /// The time to wait, if there is another attempt.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Retry { after } => Some(*after),
            Self::Commit | Self::Bury => None,
        }
    }
}

/// How often and how fast a function is retried.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Policy {
    /// The contract decides whether there is a second attempt at all.
    pub contract: Contract,
    /// Attempts before a message is dead.
    pub max_attempts: u32,
    /// Waiting time between them.
    pub backoff: Backoff,
}

impl Manifest {
    /// What this manifest says about it.
    #[must_use]
    pub fn policy(&self) -> Policy {
        Policy { contract: self.contract, max_attempts: self.max_attempts(), backoff: *self.retry.backoff.get_ref() }
    }
}

/// Decides. `chance` is a random number in `0.0..1.0`, used for jitter only.
#[must_use]
pub fn settle(outcome: &Outcome, attempt: u32, policy: &Policy, chance: f64) -> Settlement {
    match outcome {
        Outcome::Completed(_) => Settlement::Commit,
        Outcome::Refused(_) => Settlement::Bury,
        _ if policy.contract == Contract::BeginOnce => Settlement::Bury, // Begun, and its end is known: never again.
        _ if attempt >= policy.max_attempts => Settlement::Bury,
        Outcome::Failed { delay, .. } => Settlement::Retry {
            after: policy.backoff.after(attempt, chance).max(delay.unwrap_or_default().min(policy.backoff.max)),
        },
        _ => Settlement::Retry { after: policy.backoff.after(attempt, chance) },
    }
}

impl Backoff {
    /// Waiting time after the given attempt (from 1): `initial · factor^(attempt-1)`, at most `max`, of which the
    /// share `jitter` is random, so that messages which failed together do not come back together.
    #[must_use]
    pub fn after(&self, attempt: u32, chance: f64) -> Duration {
        let exponent = i32::try_from(attempt.saturating_sub(1)).unwrap_or(i32::MAX);
        let full = (self.initial.as_secs_f64() * self.factor.powi(exponent)).min(self.max.as_secs_f64());
        Duration::from_secs_f64(full * (1.0 - self.jitter * chance))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(contract: Contract) -> Policy {
        let backoff =
            Backoff { initial: Duration::from_secs(1), factor: 2.0, max: Duration::from_secs(300), jitter: 0.5 };
        Policy { contract, max_attempts: 3, backoff }
    }

    fn retry(seconds: f64) -> Settlement {
        Settlement::Retry { after: Duration::from_secs_f64(seconds) }
    }

    #[test]
    fn only_ok_commits() {
        let failures = [
            Outcome::Failed { reason: String::new(), delay: None },
            Outcome::Trapped(String::new()),
            Outcome::OutOfFuel,
            Outcome::TimedOut,
            Outcome::OutOfMemory(String::new()),
            Outcome::SqlForbidden(String::new()),
            Outcome::Doomed(String::new()),
            Outcome::HostFailed(String::new()),
        ];
        for outcome in failures {
            assert_eq!(settle(&outcome, 1, &policy(Contract::FinishOnce), 0.0), retry(1.0), "{outcome:?}");
            assert_eq!(settle(&outcome, 3, &policy(Contract::FinishOnce), 0.0), Settlement::Bury, "{outcome:?}");
            assert_eq!(settle(&outcome, 1, &policy(Contract::BeginOnce), 0.0), Settlement::Bury, "{outcome:?}");
        }
        assert_eq!(settle(&Outcome::Completed(None), 9, &policy(Contract::BeginOnce), 0.0), Settlement::Commit);
        assert_eq!(settle(&Outcome::Refused(String::new()), 1, &policy(Contract::FinishOnce), 0.0), Settlement::Bury);
    }

    #[test]
    fn backoff_grows_to_its_limit_and_jitter_shortens_it() {
        let backoff = policy(Contract::FinishOnce).backoff;
        assert_eq!(backoff.after(1, 0.0), Duration::from_secs(1));
        assert_eq!(backoff.after(4, 0.0), Duration::from_secs(8));
        assert_eq!(backoff.after(4, 1.0), Duration::from_secs(4));
        assert_eq!(backoff.after(4_000_000, 0.0), Duration::from_secs(300));
    }

    #[test]
    fn a_guest_may_ask_for_more_time_but_not_for_more_than_the_policy() {
        let asked = |seconds| Outcome::Failed { reason: String::new(), delay: Some(Duration::from_secs(seconds)) };
        assert_eq!(settle(&asked(20), 1, &policy(Contract::FinishOnce), 0.0), retry(20.0));
        assert_eq!(settle(&asked(0), 1, &policy(Contract::FinishOnce), 0.0), retry(1.0));
        assert_eq!(settle(&asked(99_999), 1, &policy(Contract::FinishOnce), 0.0), retry(300.0));
    }
}
