//! How many messages of a function share a commit: a decision on what its label says and on how long they took. Pure, but for
//! what it remembers.
//!
//! A commit costs the same for one message and for many, so those that are proved to leave nothing outside of it share one.
//! They run one after another in it. That is worth it while a message takes little more than its statements; one that
//! computes for longer is better off beside the others, on a core of its own.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

/// Messages in one commit at most.
const MOST: u32 = 256;
/// As many share the first one, before it is known how long that takes.
const FIRST: u32 = 8;
/// For so long a commit may be held open, as far as that can be told: the last message to come waits for the one before.
const TOGETHER: Duration = Duration::from_millis(40);
/// And when it was held open for as long as this, it is closed with what it has: they were not as quick as they used to be.
pub(crate) const ENOUGH: Duration = Duration::from_millis(200);
/// Whoever uses more fuel than this runs alone: a few milliseconds of computing.
const LITTLE: u64 = 5_000_000;
/// After so many messages that each took as many calls, the next one is expected to.
const ALIKE: u32 = 128;
/// Of what is remembered, this much is the last message's: one in so many.
const WEIGHT: u64 = 8;
/// And this much is forgotten with each message that runs alone: what was slow once may be quick by now.
const FADES: u64 = 64;

/// What a function's messages took, lately.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    /// Of one that shared a commit, in microseconds, and of any, in fuel; 0 is not known.
    time: AtomicU64,
    fuel: AtomicU64,
    /// Calls that each of the last messages took of the transaction, and how many messages these were.
    calls: AtomicU32,
    alike: AtomicU32,
    /// Messages that run alone before the next commit is shared: a shared one went wrong.
    alone: AtomicU32,
}

impl Pace {
    /// A message ran alone. How long that took says little: it waits for what runs beside it.
    pub(crate) fn ran_alone(&self, fuel: Option<u64>) {
        if let Some(fuel) = fuel {
            remember(&self.fuel, fuel);
        }
        let _ = self.time.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |time| Some(time - time / FADES));
        let _ = self.alone.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |alone| alone.checked_sub(1));
    }

    /// A message ran in a commit that it shares.
    pub(crate) fn ran_together(&self, time: Duration, fuel: Option<u64>) {
        remember(&self.time, u64::try_from(time.as_micros()).unwrap_or(u64::MAX));
        if let Some(fuel) = fuel {
            remember(&self.fuel, fuel);
        }
    }

    /// So many calls of the transaction a message took that shared a commit.
    pub(crate) fn took(&self, calls: u32) {
        if self.calls.swap(calls, Ordering::Relaxed) == calls {
            self.alike.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |alike| alike.checked_add(1)).ok();
        } else {
            self.alike.store(0, Ordering::Relaxed);
        }
    }

    /// How many calls of the transaction the next message takes, if that can be told.
    pub(crate) fn calls(&self) -> Option<u32> {
        (self.alike.load(Ordering::Relaxed) >= ALIKE).then(|| self.calls.load(Ordering::Relaxed))
    }

    /// A commit that was shared by so many came to nothing.
    pub(crate) fn fell_apart(&self, messages: u32) {
        self.alone.store(messages, Ordering::Relaxed);
        self.alike.store(0, Ordering::Relaxed);
    }

    /// How many may share the next one. 1: none.
    pub(crate) fn together(&self) -> u32 {
        let [time, fuel] = [&self.time, &self.fuel].map(|known| known.load(Ordering::Relaxed));
        if fuel == 0 || LITTLE < fuel || self.alone.load(Ordering::Relaxed) > 0 {
            return 1;
        }
        let held = u64::try_from(TOGETHER.as_micros()).unwrap_or(u64::MAX);
        held.checked_div(time).map_or(FIRST, |count| u32::try_from(count).unwrap_or(MOST).clamp(1, MOST))
    }
}

fn remember(known: &AtomicU64, last: u64) {
    let next = match known.load(Ordering::Relaxed) {
        0 => last,
        known => known - known / WEIGHT + last / WEIGHT,
    };
    known.store(next.max(1), Ordering::Relaxed); // A number that is lost between two threads is no loss.
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(micros: u64, fuel: u64) -> Pace {
        let pace = Pace::default();
        pace.ran_together(Duration::from_micros(micros), Some(fuel));
        pace
    }

    #[test]
    fn short_messages_share_and_long_ones_do_not() {
        let first = Pace::default();
        assert_eq!(first.together(), 1, "nothing is known of it");
        first.ran_alone(Some(9_000));
        assert_eq!(first.together(), FIRST);
        assert_eq!(after(100, 9_000).together(), MOST);
        assert_eq!(after(2_000, 9_000).together(), 20);
        assert_eq!(after(50_000, 9_000).together(), 1, "its statements take that long");
        assert_eq!(after(100, 9_000_000).together(), 1, "it computes");
        first.ran_alone(None);
        assert_eq!(first.together(), FIRST, "one that was ended by the clock says nothing of the others");
    }

    #[test]
    fn what_is_long_ago_counts_little() {
        let pace = after(30_000, 9_000_000);
        for _ in 0..100 {
            pace.ran_together(Duration::from_micros(300), Some(9_000));
        }
        assert!(pace.together() > 100, "{}", pace.together());
    }

    #[test]
    fn what_was_slow_once_is_tried_again() {
        let pace = after(60_000, 9_000);
        assert_eq!(pace.together(), 1);
        for _ in 0..100 {
            pace.ran_alone(Some(9_000));
        }
        assert!((2..FIRST).contains(&pace.together()), "a few at first: {}", pace.together());
    }

    #[test]
    fn what_was_the_same_for_long_is_expected_until_it_is_not() {
        let pace = Pace::default();
        for _ in 0..=ALIKE {
            assert_eq!(pace.calls(), None);
            pace.took(2);
        }
        assert_eq!(pace.calls(), Some(2));
        pace.took(3);
        assert_eq!(pace.calls(), None);
    }

    #[test]
    fn after_one_that_went_wrong_as_many_run_alone() {
        let pace = after(100, 9_000);
        pace.fell_apart(3);
        for _ in 0..3 {
            assert_eq!(pace.together(), 1);
            pace.ran_alone(Some(9_000));
        }
        assert_eq!(pace.together(), MOST);
    }
}
