//! From a request to its effect: `Prefer: wait`, so the answer comes after the commit. At 50 requests a second, where nobody
//! waits for anybody; with as many as the host can take; and with half of that.
//!
//! Requests are sent when they are due, whether or not those before were answered: who is held up is counted.

use std::time::Duration;

use anyhow::ensure;
use http::StatusCode;

use super::http::{closed, paced};
use super::ingest::CONNECTIONS;
use super::load::bodies;
use super::{Bench, COUNTER, Part, rate};

const FEW: f64 = 50.0;
/// Requests at that rate: five seconds of them.
const MOST_OF_FEW: u32 = 250;
/// The other rates are held for so long at most.
const SECONDS: f64 = 3.0;
const MOST: u32 = 10_000;

impl Bench<'_> {
    pub(super) async fn latency(&mut self) -> anyhow::Result<()> {
        if !self.wants(Part::Ingest) {
            self.floor_of_inserts().await?; // For the time of one commit.
        }
        let (messages, path) = (self.options.messages, format!("/fn/{COUNTER}"));
        self.say("latency at 50 a second");
        let picks = self.load.picks((messages / 10).clamp(20, MOST_OF_FEW));
        let times = paced(self.host.address(), &path, FEW, bodies(&picks)).await?;
        self.found("latency_p50_us", at(&times, 0.5));
        self.found("latency_p99_us", at(&times, 0.99));
        self.load.count(&picks);

        self.say("as many calls as it takes");
        let picks = self.load.picks(messages.min(MOST));
        let sent = closed(self.host.address(), &path, true, bodies(&picks), CONNECTIONS).await?;
        let other = sent.statuses.iter().find(|status| **status != StatusCode::OK);
        ensure!(other.is_none(), "a message was not answered with 200: {other:?}");
        let full = rate(picks.len() as u64, sent.seconds)?;
        self.found("calls", full);
        self.load.count(&picks);

        self.say("latency at half of that");
        let half = full / 2.0;
        let picks = self.load.picks(messages.min((half * SECONDS) as u32).max(20));
        let times = paced(self.host.address(), &path, half, bodies(&picks)).await?;
        self.found("latency_half_load_p50_us", at(&times, 0.5));
        self.found("latency_half_load_p99_us", at(&times, 0.99));
        self.load.count(&picks);
        self.until_empty(COUNTER).await?;
        self.check().await
    }
}

/// Microseconds that so large a share of these, which are sorted, did not exceed.
fn at(times: &[Duration], share: f64) -> f64 {
    let place = (times.len() as f64 * share).ceil() as usize;
    times.get(place.saturating_sub(1)).copied().unwrap_or_default().as_secs_f64() * 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_one_of_the_times() {
        let times: Vec<Duration> = (1..=200).map(Duration::from_micros).collect();
        assert_eq!((at(&times, 0.5).round(), at(&times, 0.99).round()), (100.0, 198.0));
        assert_eq!(at(&times[..1], 0.99).round(), 1.0);
    }
}
