//! The host that is measured: a process of its own, as in production, with the counter deployed twice.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use http::StatusCode;

use super::http::Connection;
use super::load::name;
use super::{COUNTER, SINGLE};
use crate::experiment::Place;
use crate::experiment::client::Counts;
use crate::experiment::host::{HostOptions, HostProcess};

/// A host to which nothing has happened for so long is idle.
const IDLE_FOR: Duration = Duration::from_secs(1);
/// A tick of the processor times in /proc: the same on all Linux.
const TICK: Duration = Duration::from_millis(10);

pub(super) struct Host {
    process: HostProcess,
}

/// What the process has needed so far, as the system counts it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Vitals {
    /// In memory now, and at most.
    pub(super) resident_bytes: u64,
    pub(super) peak_bytes: u64,
    /// On all processors.
    pub(super) processor: Duration,
    /// Sent on its way to a disk.
    pub(super) written_bytes: u64,
}

impl Host {
    pub(super) async fn start(place: &Place, database: &str, functions: &Path) -> anyhow::Result<Self> {
        let options = HostOptions::new(database, place.folder().join("host"))?;
        let process =
            HostProcess::start(options.variable("SEMEL_CACHE", place.folder().join("host/semel.cache"))).await?;
        let counter = functions.join(COUNTER);
        process.client().deploy(&counter, None).await?;
        let single = place.function(SINGLE, &counter, "[limits]\ntimeout = \"2s\"\n[flow]\nbatch = \"off\"")?;
        process.client().deploy(&single, None).await?;
        Ok(Self { process })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.process.address()
    }

    /// Leaves what waits where it is.
    pub(super) async fn pause(&self, function: &str) -> anyhow::Result<()> {
        self.steer(function, "pause").await
    }

    pub(super) async fn resume(&self, function: &str) -> anyhow::Result<()> {
        self.steer(function, "resume").await
    }

    async fn steer(&self, function: &str, verb: &str) -> anyhow::Result<()> {
        let mut connection = Connection::open(self.address()).await?;
        let status = connection.post(&format!("/v1/functions/{function}/{verb}"), false, Bytes::new()).await?;
        ensure!(status == StatusCode::OK, "the host does not {verb} {function}: {status}");
        Ok(())
    }

    pub(super) async fn counts(&self, function: &str) -> anyhow::Result<Counts> {
        self.process.client().counts(function).await
    }

    /// Resident bytes of a host that was just started, has answered one message, and does nothing.
    pub(super) async fn idle(&mut self) -> anyhow::Result<u64> {
        self.stop().await?;
        self.process.restart().await?;
        let mut connection = Connection::open(self.address()).await?;
        let status = connection.post(&format!("/fn/{COUNTER}"), true, name(0).into()).await?;
        ensure!(status == StatusCode::OK, "the counter does not answer: {status}");
        drop(connection);
        tokio::time::sleep(IDLE_FOR).await;
        Ok(self.vitals()?.resident_bytes)
    }

    pub(super) async fn stop(&mut self) -> anyhow::Result<()> {
        let status = self.process.stop().await?;
        ensure!(status.success(), "the host ended with {status}");
        Ok(())
    }

    pub(super) fn vitals(&self) -> anyhow::Result<Vitals> {
        let process = self.process.process().context("the host is down")?;
        let read = |name: &str| {
            std::fs::read_to_string(format!("/proc/{process}/{name}"))
                .with_context(|| format!("cannot read its {name}"))
        };
        let (status, stat, io) = (read("status")?, read("stat")?, read("io")?);
        let number = |text: &str, name: &str| -> anyhow::Result<u64> {
            let line =
                text.lines().find_map(|line| line.strip_prefix(name)).and_then(|rest| rest.split_whitespace().next());
            line.and_then(|word| word.parse().ok()).with_context(|| format!("the system does not say {name}"))
        };
        // The name in parentheses may hold anything; user and system time are the 12th and 13th word behind it.
        let behind = stat.rsplit_once(") ").map(|(_, rest)| rest).unwrap_or_default();
        let ticks: u32 = behind.split(' ').skip(11).take(2).filter_map(|word| word.parse::<u32>().ok()).sum();
        Ok(Vitals {
            resident_bytes: number(&status, "VmRSS:")? << 10,
            peak_bytes: number(&status, "VmHWM:")? << 10,
            processor: TICK * ticks,
            written_bytes: number(&io, "write_bytes:")?,
        })
    }
}
