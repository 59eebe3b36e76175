//! What became of a message: each of its effects, counted, and what the ledger says of its call.

use std::time::Duration;

use anyhow::Context as _;
use serde_json::{Value, json};

use super::super::client::{Attempt, Bounds, Client};
use super::super::receiver::Receiver;
use super::FUNCTION;
use super::allowed::Class;

/// The effects, one of every class there is, in the order of the columns.
pub(super) const EFFECTS: [(&str, Class); 6] = [
    ("row", Class::Transactional),
    ("state", Class::Transactional),
    ("row after", Class::Transactional),
    ("published", Class::Transactional),
    ("answer", Class::Transactional),
    ("outside call", Class::Outside),
];
const PATIENCE: Duration = Duration::from_secs(20);

/// One message, when nothing more happens to it.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    pub(super) id: String,
    pub(super) state: String,
    /// How often each of [`EFFECTS`] has happened.
    pub(super) counts: [u64; 6],
    pub(super) attempts: Vec<Attempt>,
    /// Every request for it had the same key, and had one.
    pub(super) one_key: bool,
    /// How often the ledger says that its calls happened.
    pub(super) bounds: Bounds,
    /// Calls that the ledger still has as intended, though nobody makes them any more.
    pub(super) intended: u64,
}

impl Seen {
    /// Whether an attempt completed that was not the last one: then an older claim has committed.
    pub(super) fn is_overtaken(&self) -> bool {
        let completed = |attempt: &&Attempt| attempt.outcome == "completed";
        let last = self.attempts.iter().map(|attempt| attempt.attempt).max();
        let done: Vec<_> = self.attempts.iter().filter(completed).map(|attempt| Some(attempt.attempt)).collect();
        match self.state.as_str() {
            "completed" => done != [last],
            _ => !done.is_empty(),
        }
    }

    /// What happened outside, as the receiver saw it.
    pub(super) fn outside(&self) -> u64 {
        self.counts[EFFECTS.len() - 1]
    }
}

/// Asks the host, and the server that was called.
pub(super) async fn look(client: &Client, receiver: &Receiver, id: String) -> anyhow::Result<Seen> {
    let message = client.message(&id).await?;
    let trace = client.trace(&id).await?;
    let found = client.call(FUNCTION, &json!({ "count": id }), PATIENCE).await?;
    let count = |name: &str| found.get(name).and_then(Value::as_u64).with_context(|| format!("no {name} in {found}"));
    let keys = receiver.keys(&id);
    let one_key = keys.iter().all(|key| !key.is_empty() && *key == keys[0]);
    let answers = u64::from(message.response.is_some());
    let counts = [count("before")?, count("state")?, count("after")?, count("receipts")?, answers, keys.len() as u64];
    let bounds = trace.calls.iter().fold(Bounds::default(), |sum, call| Bounds {
        least: sum.least + call.bounds.least,
        most: sum.most + call.bounds.most,
    });
    let intended = trace.calls.iter().filter(|call| call.state == "intended").count() as u64;
    Ok(Seen { id, state: message.state, counts, attempts: trace.attempts, one_key, bounds, intended })
}
