//! What a host needs and how fast it answers: resident memory, open files, and the median latency of `counter`.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use serde_json::json;

use super::super::client::Client;
use super::super::host::HostProcess;
use super::{COUNTER, Pair};

/// Memory that is given back late, and connections that are being closed, get this long.
const SETTLED_WITHIN: Duration = Duration::from_secs(20);
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Looks in a row that must be the same (memory: within 1 %) to count as settled.
const SAME: u32 = 4;
const ANSWER_WITHIN: Duration = Duration::from_secs(20);

/// A host at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Vitals {
    /// In KiB.
    pub(super) resident: u64,
    /// Open files, sockets and the like.
    pub(super) files: u64,
    /// Median of a call of `counter`, from the request to its answer; zero if not measured.
    pub(super) latency: Duration,
}

impl Vitals {
    /// Memory and files, now.
    pub(super) fn of(host: &HostProcess) -> anyhow::Result<Self> {
        let process = host.process().context("the host is down")?;
        let status = std::fs::read_to_string(format!("/proc/{process}/status")).context("cannot see the host")?;
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let resident = resident.and_then(|rest| rest.trim().trim_end_matches(" kB").parse().ok());
        let files = std::fs::read_dir(format!("/proc/{process}/fd")).context("cannot see the host's open files")?;
        Ok(Self {
            resident: resident.context("the system does not say how much memory the host has")?,
            files: files.count() as u64,
            latency: Duration::ZERO,
        })
    }

    fn is_like(&self, other: &Self) -> bool {
        self.files == other.files && self.resident.abs_diff(other.resident) * 100 <= other.resident
    }
}

/// Calls both hosts in turn, then waits until neither's memory nor files move.
pub(super) async fn measure(tested: &HostProcess, beside: &HostProcess, samples: usize) -> anyhow::Result<Pair> {
    let [of_tested, of_beside] = latencies([tested, beside], samples).await?;
    let (tested, beside) = tokio::try_join!(settled(tested), settled(beside))?;
    Ok(Pair { tested: Vitals { latency: of_tested, ..tested }, beside: Vitals { latency: of_beside, ..beside } })
}

/// The median latency of each host, called in turn.
pub(super) async fn latencies(hosts: [&HostProcess; 2], samples: usize) -> anyhow::Result<[Duration; 2]> {
    // Clients of their own: their connections end with them.
    let [first, second] = hosts.map(|host| Client::new(&format!("http://{}", host.address())));
    let mut called = [(first?, Vec::new()), (second?, Vec::new())];
    for _ in 0..samples {
        for (client, latencies) in &mut called {
            let began = Instant::now();
            client.call(COUNTER, &json!("latency"), ANSWER_WITHIN).await?;
            latencies.push(began.elapsed());
        }
    }
    Ok(called.map(|(_, latencies)| median(latencies)))
}

fn median(mut latencies: Vec<Duration>) -> Duration {
    latencies.sort_unstable();
    latencies.get(latencies.len() / 2).copied().unwrap_or_default()
}

async fn settled(host: &HostProcess) -> anyhow::Result<Vitals> {
    let end = Instant::now() + SETTLED_WITHIN;
    let mut seen = (Vitals::of(host)?, 1);
    while seen.1 < SAME && Instant::now() < end {
        tokio::time::sleep(LOOK_EVERY).await;
        let now = Vitals::of(host)?;
        seen = if now.is_like(&seen.0) { (seen.0, seen.1 + 1) } else { (now, 1) };
    }
    Vitals::of(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_and_not_the_mean() {
        assert_eq!(median([9, 1, 2].map(Duration::from_secs).to_vec()), Duration::from_secs(2));
        assert_eq!(median(Vec::new()), Duration::ZERO);
    }
}
