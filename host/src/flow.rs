//! How fast a function may be started: pure arithmetic, so that it can be read and tested here.

use std::time::Duration;

use crate::clock::Timestamp;

/// Starts that may come at once after a pause are those of this time: about as long as a worker sleeps between two looks
/// at the queue.
const TOLERANCE: i64 = 250_000;

/// So many starts per time, evenly spread: the generic cell rate algorithm (ITU-T I.371), whose whole memory is one point
/// in time, the *theoretical arrival time* of the next start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Microseconds between two starts; at least 1.
    pub every: i64,
}

impl Rate {
    /// `count` starts per `span`.
    #[must_use]
    pub fn new(count: u32, span: Duration) -> Option<Self> {
        let micros = i64::try_from(span.as_micros()).ok()?;
        let every = micros.checked_div(i64::from(count))?;
        (every > 0).then_some(Self { every })
    }

    /// How many may start now.
    #[must_use]
    pub fn room(self, next: Timestamp, now: Timestamp) -> u32 {
        let ahead = next.0.saturating_sub(now.0).max(0);
        let room = (TOLERANCE - ahead).div_euclid(self.every) + 1;
        u32::try_from(room.max(0)).unwrap_or(u32::MAX)
    }

    /// When the next one is due after `started` of them start now.
    #[must_use]
    pub fn after(self, next: Timestamp, now: Timestamp, started: u32) -> Timestamp {
        Timestamp(next.0.max(now.0).saturating_add(self.every.saturating_mul(i64::from(started))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Starts in ten seconds if somebody looks every `look` microseconds and takes what may start.
    fn starts(rate: Rate, look: i64) -> u32 {
        let (mut next, mut total) = (Timestamp(0), 0);
        for now in (1_000_000..11_000_000).step_by(usize::try_from(look).expect("a step")).map(Timestamp) {
            let room = rate.room(next, now);
            next = rate.after(next, now, room);
            total += room;
        }
        total
    }

    #[test]
    fn a_rate_is_kept_and_used_however_often_somebody_looks() {
        let per_second = |count| Rate::new(count, Duration::from_secs(1)).expect("a rate");
        for look in [1_000, 37_000, 200_000] {
            assert!((1000..=1026).contains(&starts(per_second(100), look)), "{}", starts(per_second(100), look));
            assert!((10..=11).contains(&starts(per_second(1), look)));
        }
        assert_eq!(
            starts(Rate::new(6, Duration::from_secs(60)).expect("a rate"), 1_000),
            2,
            "the second a tolerance early"
        );
        assert_eq!(Rate::new(0, Duration::from_secs(1)), None);
        assert_eq!(Rate::new(u32::MAX, Duration::from_millis(1)), None);
    }
}
