//! The database under the bench: what Semel runs on, what the floors run on, and what is looked at from outside.
//!
//! The kinds differ in every statement and in what a good plain loop is there, so each is a file of its own.

use std::time::Duration;

use async_trait::async_trait;
use serde_json::Value as Json;

use super::file::File;
use super::server;
use crate::experiment::Place;
use crate::store;

/// What a plain loop works off: messages that wait in a table, claimed and deleted, each with the statements of
/// `guests/counter`, so many per commit, on so many connections at once.
pub(super) struct Work<'a> {
    pub(super) picks: &'a [u32],
    pub(super) together: u32,
    pub(super) connections: u32,
}

/// Messages put into a table, each with a commit of its own.
pub(super) struct Inserted {
    /// Per second, over all connections.
    pub(super) rate: f64,
    /// Of one of them, with its commit.
    pub(super) median: Duration,
}

#[async_trait]
pub(super) trait Ground: Send {
    /// What a host serves.
    fn url(&self) -> String;

    /// How many may write at once.
    fn connections(&self) -> u32;

    /// What others reach on such a database with the same guarantee, in messages per second: measured apart, on another run.
    fn others(&self) -> &'static [(&'static str, u64)];

    /// Kind, version and settings, and whether a commit waits for the disk.
    async fn facts(&mut self) -> anyhow::Result<Json>;

    /// The floor of a drain: messages per second. Everything it did is checked.
    async fn drain(&mut self, work: &Work<'_>) -> anyhow::Result<f64>;

    /// The floor of accepting.
    async fn insert(&mut self, count: u32, connections: u32) -> anyhow::Result<Inserted>;

    /// Messages of a function, waiting as if they had been accepted. In one commit, so not too many.
    async fn fill(&mut self, function: &str, bodies: &[String]) -> anyhow::Result<()>;

    /// Does what the database would otherwise do later, when the clock runs: that of what was written before.
    async fn settle(&mut self) -> anyhow::Result<()>;

    /// The sum of all counters that is committed. Cheap: it is asked for again and again while Semel works.
    async fn counted(&mut self) -> anyhow::Result<i64>;

    /// Every counter.
    async fn counters(&mut self) -> anyhow::Result<Vec<(String, i64)>>;

    /// Bytes of the database's log so far; none where only the host itself can tell what it wrote.
    async fn log_bytes(&mut self) -> anyhow::Result<Option<u64>>;

    /// Messages of a function that have passed: accepted, completed, with their attempts. In one commit.
    async fn pass(&mut self, function: &str, count: u32) -> anyhow::Result<()>;

    /// Takes claimed messages out of the queue, as their acknowledgement would.
    async fn take_out_claimed(&mut self) -> anyhow::Result<()>;

    /// Leaves nothing behind.
    async fn remove(&mut self) -> anyhow::Result<()>;
}

/// A fresh database: on the server that is named, in the file that is named, or in a file of its own.
pub(super) async fn open(url: Option<&str>, place: &Place) -> anyhow::Result<Box<dyn Ground>> {
    Ok(match url {
        Some(url) if store::is_shared(url) => server::make(url).await?,
        Some(url) => Box::new(File::named(url)?),
        None => Box::new(File::named(&place.database("semel"))?),
    })
}
