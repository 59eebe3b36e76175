//! The senders: as many at once as were asked for, each taking the next request when its last one is accepted and the
//! faults have not kept it back.
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
    hosts: &[Client],
    progress: &Arc<Progress>,
    counter: &str,
    clients: usize,
) -> anyhow::Result<Vec<Accepted>> {
    let mut senders = JoinSet::new();
    for number in 0..clients.max(1) {
        // Spread over the hosts; each goes on to the others when its own does not answer.
        let mut hosts = hosts.to_vec();
        let turn = number % hosts.len().max(1);
        hosts.rotate_left(turn);
        senders.spawn(send(hosts, Arc::clone(progress), counter.to_owned()));
    }
    let mut all = Vec::new();
    while let Some(sender) = senders.join_next().await {
        all.extend(sender.context("a sender broke off")??);
    }
    Ok(all)
}

async fn send(hosts: Vec<Client>, progress: Arc<Progress>, counter: String) -> anyhow::Result<Vec<Accepted>> {
    let path = format!("/count/{counter}");
    let mut answers = Vec::new();
    while let Some(number) = progress.next_request().await {
        let key = format!("{counter}-{number}");
        let accepted = Client::send_to_any(&hosts.iter().collect::<Vec<_>>(), &path, &key, b"").await?;
        progress.note_accepted();
        answers.push(accepted);
    }
    Ok(answers)
}
