//! The senders: as many at once as were asked for, each taking the next request when its last one is accepted.
//!
//! Every request has an idempotency key of its own, made of the counter's name and the request's number, and keeps
//! it over all its tries. That is all a sender has to do for its message to exist exactly once.

use std::sync::Arc;

use anyhow::Context as _;
use tokio::task::JoinSet;

use super::super::client::{Accepted, Client};
use super::progress::Progress;

/// Sends every request of the run, and returns what was answered.
pub(super) async fn send_all(
    client: &Client,
    progress: &Arc<Progress>,
    counter: &str,
    clients: usize,
) -> anyhow::Result<Vec<Accepted>> {
    let mut senders = JoinSet::new();
    for _ in 0..clients.max(1) {
        senders.spawn(send(client.clone(), Arc::clone(progress), counter.to_owned()));
    }
    let mut all = Vec::new();
    while let Some(sender) = senders.join_next().await {
        all.extend(sender.context("a sender broke off")??);
    }
    Ok(all)
}

async fn send(client: Client, progress: Arc<Progress>, counter: String) -> anyhow::Result<Vec<Accepted>> {
    let path = format!("/count/{counter}");
    let mut answers = Vec::new();
    while let Some(number) = progress.next_request() {
        let accepted = client.send(&path, &format!("{counter}-{number}"), b"").await?;
        progress.note_accepted();
        answers.push(accepted);
    }
    Ok(answers)
}
