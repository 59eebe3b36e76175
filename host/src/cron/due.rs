//! What is due of a schedule. Pure.

use std::time::Duration;

use crate::clock::{Timestamp, micros};
use crate::manifest::{Cron, Missed};

/// How late a slot may be where what was missed is skipped: a host that starts again loses none.
const GRACE: Duration = Duration::from_secs(60);
/// Most slots that are caught up with.
const MOST: usize = 100;

/// Slots that are to be fired.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Due {
    /// The oldest first.
    pub(super) slots: Vec<Timestamp>,
    /// Whether there were more than can be caught up with.
    pub(super) lost: bool,
}

/// What is to be fired of a schedule that has come so far: slots after `reached`, up to now.
pub(super) fn due(cron: &Cron, reached: Timestamp, now: Timestamp) -> Due {
    let after = match cron.missed {
        Missed::Skip => reached.max(Timestamp(now.0 - micros(GRACE) - 1)),
        Missed::CatchUp => reached,
    };
    // Forwards first: the slot before may be years away.
    if cron.next(after).is_none_or(|next| next > now) {
        return Due { slots: Vec::new(), lost: false };
    }
    let mut slots: Vec<_> = cron.back_from(now).take_while(|slot| *slot > after).take(MOST + 1).collect();
    let lost = slots.len() > MOST;
    slots.truncate(MOST);
    slots.reverse();
    Due { slots, lost }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(time: &str) -> Timestamp {
        serde_json::from_value(serde_json::json!(time)).expect("a time")
    }

    /// Schedule, time zone, and whether it catches up.
    fn cron(schedule: &str, timezone: &str, missed: &str) -> Cron {
        let text = format!("schedule = \"{schedule}\"\ntimezone = \"{timezone}\"\nmissed = \"{missed}\"");
        toml::from_str(&text).expect("a schedule")
    }

    fn slots(cron: &Cron, reached: &str, now: &str) -> Vec<String> {
        let due = due(cron, at(reached), at(now));
        assert!(!due.lost);
        due.slots.iter().map(|slot| slot.to_string().replace(".000000", "")).collect()
    }

    #[test]
    fn a_slot_is_due_from_its_moment_on_and_once() {
        let hourly = cron("0 * * * *", "UTC", "skip");
        assert_eq!(slots(&hourly, "2026-01-01T00:30:00Z", "2026-01-01T00:59:59.999999Z"), [""; 0]);
        assert_eq!(slots(&hourly, "2026-01-01T00:30:00Z", "2026-01-01T01:00:00Z"), ["2026-01-01T01:00:00Z"]);
        assert_eq!(slots(&hourly, "2026-01-01T01:00:00Z", "2026-01-01T01:00:30Z"), [""; 0], "it was fired");
        assert_eq!(slots(&hourly, "2026-01-01T03:00:00Z", "2026-01-01T02:00:00Z"), [""; 0], "the clock was set back");
    }

    #[test]
    fn what_is_a_minute_late_is_fired_and_what_is_later_is_skipped() {
        let hourly = cron("0 * * * *", "UTC", "skip");
        assert_eq!(slots(&hourly, "2026-01-01T00:30:00Z", "2026-01-01T01:01:00Z"), ["2026-01-01T01:00:00Z"]);
        assert_eq!(slots(&hourly, "2026-01-01T00:30:00Z", "2026-01-01T01:01:00.000001Z"), [""; 0]);
        assert_eq!(slots(&hourly, "2025-01-01T00:30:00Z", "2026-01-01T03:00:10Z"), ["2026-01-01T03:00:00Z"]);
    }

    #[test]
    fn each_missed_slot_is_caught_up_with_in_order_but_for_the_oldest_of_very_many() {
        let hourly = cron("0 * * * *", "UTC", "catch-up");
        let three = ["2026-01-01T01:00:00Z", "2026-01-01T02:00:00Z", "2026-01-01T03:00:00Z"];
        assert_eq!(slots(&hourly, "2026-01-01T00:30:00Z", "2026-01-01T03:59:59Z"), three);
        let hundred = due(&hourly, at("2026-01-01T00:00:00Z"), at("2026-01-05T04:00:00Z"));
        assert_eq!((hundred.slots.len(), hundred.lost, hundred.slots[0]), (100, false, at("2026-01-01T01:00:00Z")));
        let more = due(&hourly, at("2025-01-01T00:00:00Z"), at("2026-01-05T04:00:00Z"));
        assert_eq!((more.slots.len(), more.lost, more.slots[0]), (100, true, at("2026-01-01T01:00:00Z")));
    }

    #[test]
    fn days_on_which_the_clock_changes_are_caught_up_with_as_they_would_have_fired() {
        let daily = cron("30 2 * * *", "Europe/Berlin", "catch-up");
        let spring = ["2026-03-28T01:30:00Z", "2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z"];
        assert_eq!(slots(&daily, "2026-03-27T12:00:00Z", "2026-03-30T12:00:00Z"), spring);
        let autumn = ["2026-10-24T00:30:00Z", "2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"];
        assert_eq!(slots(&daily, "2026-10-23T12:00:00Z", "2026-10-26T12:00:00Z"), autumn);
        // In the second of the two hours the first one's slot is not fired again.
        let skip = cron("30 2 * * *", "Europe/Berlin", "skip");
        assert_eq!(slots(&skip, "2026-10-24T12:00:00Z", "2026-10-25T00:30:00Z"), ["2026-10-25T00:30:00Z"]);
        assert_eq!(slots(&skip, "2026-10-25T00:30:00Z", "2026-10-25T01:30:00Z"), [""; 0]);
    }
}
