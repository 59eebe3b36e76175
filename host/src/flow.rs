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
        let ahead = self.believed(next, now).0 - now.0;
        let room = (TOLERANCE - ahead).div_euclid(self.every) + 1;
        u32::try_from(room.max(0)).unwrap_or(u32::MAX)
    }

    /// When the next one is due after `started` of them start now.
    #[must_use]
    pub fn after(self, next: Timestamp, now: Timestamp, started: u32) -> Timestamp {
        let next = self.believed(next, now).0.saturating_add(self.every.saturating_mul(i64::from(started)));
        Timestamp(next.min(self.farthest(now)))
    }

    /// What cannot come from this rate and this clock is forgotten: a slower rate of before, or a clock that was set back
    /// while nobody had the store open, would keep everybody waiting.
    fn believed(self, next: Timestamp, now: Timestamp) -> Timestamp {
        if next.0 > self.farthest(now) { now } else { next.max(now) }
    }

    /// No start moves the point in time further than this.
    fn farthest(self, now: Timestamp) -> i64 {
        now.0.saturating_add(TOLERANCE).saturating_add(self.every)
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
    fn what_another_rate_or_another_clock_left_keeps_nobody_waiting() {
        let (slow, fast) = (Rate { every: 3_600_000_000 }, Rate { every: 10_000 });
        let now = Timestamp(1_000_000);
        let next = slow.after(Timestamp(0), now, slow.room(Timestamp(0), now));
        assert_eq!(slow.room(next, now), 0, "its own point in time is believed");
        assert!(fast.room(next, now) > 0, "100/s after 1/h");
        assert!(slow.room(Timestamp(i64::MAX), now) > 0, "a clock that was set back");
        assert_eq!(fast.room(fast.after(next, now, 26), now), 0, "and from then on it counts");
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
