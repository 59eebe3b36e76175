//! `[trigger] cron`: when a function is called by the clock. Pure: the time that it is comes from whoever asks.
//!
//! Where a clock goes forward, a time of day that does not exist that day fires at the first moment after the gap; where it
//! goes back, a time of day that comes twice fires at the first of both. That is for a schedule with one time of day. One that
//! repeats within the day (a list, a range, a step or `*` in seconds, minutes or hours) goes by the clock on the wall: it
//! leaves out what does not exist, and fires in what comes twice, twice.

use std::str::FromStr as _;

use croner::Direction;
use croner::parser::{CronParser, Year};
use jiff::Zoned;
use jiff::tz::TimeZone;
use serde::{Deserialize, Deserializer};
use toml::Spanned;

use crate::clock::Timestamp;
use crate::message::schedule_key;

/// One schedule.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cron {
    schedule: Schedule,
    #[serde(default)]
    timezone: Zone,
    /// Body of the message.
    #[serde(default = "empty")]
    pub(super) body: Spanned<String>,
    /// What becomes of slots in which no host ran.
    #[serde(default)]
    pub missed: Missed,
}

/// `missed`
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Missed {
    /// Nothing.
    #[default]
    Skip,
    /// Each is fired, late.
    CatchUp,
}

#[derive(Debug, Clone)]
struct Schedule(croner::Cron, String);

#[derive(Debug, Clone)]
struct Zone(TimeZone, String);

impl Cron {
    /// As it is written.
    #[must_use]
    pub fn schedule(&self) -> &str {
        &self.schedule.1
    }

    /// The name of its time zone.
    #[must_use]
    pub fn timezone(&self) -> &str {
        &self.timezone.1
    }

    /// Body of the message.
    #[must_use]
    pub fn body(&self) -> &str {
        self.body.get_ref()
    }

    /// What makes it the same schedule in the next version: all that it says of when and what.
    #[must_use]
    pub fn key(&self) -> String {
        schedule_key([self.schedule(), self.timezone(), self.body()])
    }

    /// The first slot after a time. None only at the end of times.
    #[must_use]
    pub fn next(&self, after: Timestamp) -> Option<Timestamp> {
        let Schedule(cron, _) = &self.schedule;
        cron.find_next_occurrence(&self.at(after)?, false).ok().map(|slot| instant(&slot))
    }

    /// The slots up to a time, the newest first.
    pub fn back_from(&self, until: Timestamp) -> impl Iterator<Item = Timestamp> {
        let Schedule(cron, _) = &self.schedule;
        let slots = self.at(until).map(|until| cron.iter_from(until, Direction::Backward));
        slots.into_iter().flatten().map(|slot| instant(&slot))
    }

    fn at(&self, time: Timestamp) -> Option<Zoned> {
        let Zone(zone, _) = &self.timezone;
        Some(jiff::Timestamp::from_microsecond(time.0).ok()?.to_zoned(zone.clone()))
    }
}

fn instant(slot: &Zoned) -> Timestamp {
    Timestamp(slot.timestamp().as_microsecond())
}

fn empty() -> Spanned<String> {
    Spanned::new(0..0, String::new())
}

impl Default for Zone {
    fn default() -> Self {
        Self(TimeZone::UTC, "UTC".into())
    }
}

impl<'de> Deserialize<'de> for Zone {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        let unknown = |_| {
            let what =
                format!("timezone \"{name}\" is unknown; write a name of the IANA database (Europe/Berlin), or UTC");
            serde::de::Error::custom(what)
        };
        let zone = TimeZone::get(&name).map_err(unknown)?;
        Ok(Self(zone, name))
    }
}

impl<'de> Deserialize<'de> for Schedule {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let cron = parse(&text).map_err(serde::de::Error::custom)?;
        Ok(Self(cron, text))
    }
}

fn parse(text: &str) -> Result<croner::Cron, String> {
    let parsed = CronParser::builder().year(Year::Disallowed).build().parse(text);
    let cron = parsed.map_err(|error| {
        format!(
            "schedule \"{text}\" is not understood ({error}); write minute, hour, day of the month, month and day of the week, \
             for example \"0 3 * * *\""
        )
    })?;
    // Every day that there is comes again within the 400 years of the calendar.
    let any = jiff::civil::DateTime::from_str("2000-01-01T00:00:00").map_err(|error| error.to_string())?;
    match cron.find_next_occurrence(&any, true) {
        Ok(_) => Ok(cron),
        Err(_) => Err(format!("schedule \"{text}\" never fires: no year has such a day")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cron(schedule: &str, timezone: &str) -> Cron {
        toml::from_str(&format!("schedule = \"{schedule}\"\ntimezone = \"{timezone}\"")).expect("a schedule")
    }

    fn at(time: &str) -> Timestamp {
        serde_json::from_value(serde_json::json!(time)).expect("a time")
    }

    fn slots(cron: &Cron, after: &str, until: &str) -> Vec<String> {
        let (mut after, mut found) = (at(after), Vec::new());
        while let Some(slot) = cron.next(after).filter(|slot| *slot <= at(until)) {
            found.push(jiff::Timestamp::from_microsecond(slot.0).expect("a time").to_string());
            after = slot;
        }
        found
    }

    #[test]
    fn a_time_of_day_fires_once_a_day_also_where_it_does_not_exist_or_comes_twice() {
        let daily = cron("30 2 * * *", "Europe/Berlin");
        // In the night to 2026-03-29 there is no 02:30: at 01:00Z the clock goes from 02:00 to 03:00.
        let spring = ["2026-03-28T01:30:00Z", "2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z"];
        assert_eq!(slots(&daily, "2026-03-27T12:00:00Z", "2026-03-30T12:00:00Z"), spring);
        // In the night to 2026-10-25 there are two: at 01:00Z the clock goes from 03:00 to 02:00.
        let autumn = ["2026-10-24T00:30:00Z", "2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"];
        assert_eq!(slots(&daily, "2026-10-23T12:00:00Z", "2026-10-26T12:00:00Z"), autumn);
    }

    #[test]
    fn what_repeats_goes_by_the_clock_on_the_wall() {
        let repeated = cron("0,30 2 * * *", "Europe/Berlin");
        let none = slots(&repeated, "2026-03-28T12:00:00Z", "2026-03-29T12:00:00Z");
        assert!(none.is_empty(), "{none:?}");
        let twice = ["2026-10-25T00:00:00Z", "2026-10-25T00:30:00Z", "2026-10-25T01:00:00Z", "2026-10-25T01:30:00Z"];
        assert_eq!(slots(&repeated, "2026-10-24T12:00:00Z", "2026-10-25T12:00:00Z"), twice);
        let hourly = cron("0 * * * *", "Europe/Berlin");
        for day in ["2026-03-29", "2026-10-25"] {
            let day = slots(&hourly, &format!("{day}T00:00:00Z"), &format!("{day}T06:00:00Z"));
            assert_eq!(day.len(), 6, "every hour that there is: {day:?}");
        }
    }

    /// What is missed is looked for backwards, what comes next forwards: both must mean the same slots.
    #[test]
    fn backwards_there_are_the_same_slots() {
        let schedules = [
            "30 2 * * *",
            "0 2 * * *",
            "0 0 * * *",
            "59 1 * * *",
            "0 3 * * *",
            "*/10 * * * *",
            "15 1-3 * * *",
            "0 */2 * * *",
            "0 9 * * 1-5",
            "0 12 L * *",
            "5 2 * * SUN#L",
            "@hourly",
        ];
        let changes =
            [("2027-03-10T00:00:00.5Z", "2027-04-08T00:00:00.5Z"), ("2027-09-28T12:00:00Z", "2027-11-12T12:00:00Z")];
        for timezone in ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe"] {
            for (schedule, (from, until)) in schedules.iter().flat_map(|one| changes.map(|times| (one, times))) {
                let (cron, from, until) = (cron(schedule, timezone), at(from), at(until));
                let next = std::iter::successors(cron.next(from), |slot| cron.next(*slot));
                let forwards: Vec<_> = next.take_while(|slot| *slot <= until).collect();
                let mut backwards: Vec<_> = cron.back_from(until).take_while(|slot| *slot > from).collect();
                backwards.reverse();
                assert_eq!(forwards, backwards, "{schedule} in {timezone}");
                assert!(!forwards.is_empty(), "{schedule} in {timezone}");
            }
        }
    }

    #[test]
    fn refuses_what_can_never_be() {
        let refused = |text: &str| toml::from_str::<Cron>(text).expect_err(text).to_string();
        for (schedule, clue) in [
            ("", "not understood"),
            ("* * * *", "not understood"),
            ("61 * * * *", "not understood"),
            ("0 0 * * * * 2030", "not understood"),
            ("@reboot", "not understood"),
            ("0 0 30 2 *", "never fires"),
            ("0 0 31 2,4,6,9,11 *", "never fires"),
        ] {
            let said = refused(&format!("schedule = \"{schedule}\""));
            assert!(said.contains(clue) && said.contains("schedule"), "{schedule}: {said}");
        }
        for timezone in ["", "Mars/Phobos", "../../etc/passwd"] {
            let said = refused(&format!("schedule = \"0 3 * * *\"\ntimezone = \"{timezone}\""));
            assert!(said.contains("line 2") && said.contains("is unknown"), "{said}");
        }
        assert!(refused("schedule = \"0 3 * * *\"\nmissed = \"sometimes\"").contains("sometimes"));
        assert!(refused("schedule = \"0 3 * * *\"\nat = \"noon\"").contains("at"));
        assert!(toml::from_str::<Cron>("schedule = \"0 4 29 2 *\"").is_ok(), "every four years is not never");
        assert!(toml::from_str::<Cron>("schedule = \"*/5 * * * * *\"").is_ok(), "seconds");
    }

    #[test]
    fn a_schedule_stays_the_same_as_long_as_it_says_the_same() {
        let key = |rest: &str| toml::from_str::<Cron>(&format!("schedule = \"0 3 * * *\"{rest}")).expect("one").key();
        assert_eq!(key(""), key("\nmissed = \"catch-up\""));
        assert_eq!(key(""), key("\ntimezone = \"UTC\""));
        assert_ne!(key(""), key("\ntimezone = \"Europe/Berlin\""));
        assert_ne!(key(""), key("\nbody = \"x\""));
    }
}
