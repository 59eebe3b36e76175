//! Requests until they are accepted: 32 connections, a few bytes each, and a 202 for every one. The function is paused
//! meanwhile: what is measured is the door, as the floor measures one INSERT and its commit.

use anyhow::ensure;
use http::StatusCode;

use super::http::closed;
use super::load::bodies;
use super::{Bench, COUNTER, ONE_BY_ONE, rate};

pub(super) const CONNECTIONS: usize = 32;

impl Bench<'_> {
    pub(super) async fn ingest(&mut self) -> anyhow::Result<()> {
        self.floor_of_inserts().await?;
        self.say("ingest");
        let picks = self.load.picks(self.options.messages.min(ONE_BY_ONE));
        let before = self.host.counts(COUNTER).await?;
        self.host.pause(COUNTER).await?;
        let path = format!("/fn/{COUNTER}");
        let sent = closed(self.host.address(), &path, false, bodies(&picks), CONNECTIONS).await?;
        let other = sent.statuses.iter().find(|status| **status != StatusCode::ACCEPTED);
        ensure!(other.is_none(), "a message was not accepted: {other:?}");
        let waiting = self.host.counts(COUNTER).await?.available;
        ensure!(waiting == picks.len() as u64, "{waiting} messages wait, and {} were accepted", picks.len());
        self.found("ingest", rate(waiting, sent.seconds)?);
        self.host.resume(COUNTER).await?;
        let after = self.until_empty(COUNTER).await?;
        self.load.count(&picks);
        ensure!(after.completed - before.completed == waiting, "an accepted message was not completed");
        self.check().await
    }
}
