//! What became of a message: each of its effects, counted, and what the ledger says of its call.

use std::time::Duration;

use anyhow::Context as _;
use serde_json::{Value, json};

use super::super::client::{Attempt, Bounds, Client};
use super::super::receiver::Receiver;
use super::allowed::Class;

/// The effects, one of every class there is, in the order of the columns.
pub(super) const EFFECTS: [(&str, Class); 7] = [
    ("row", Class::Transactional),
    ("state", Class::Transactional),
    ("row after", Class::Transactional),
    ("published", Class::Transactional),
    ("answer", Class::Transactional),
    ("deferred", Class::Deferred),
    ("outside call", Class::Outside),
];
const PATIENCE: Duration = Duration::from_secs(20);

/// One message, when nothing more happens to it.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    pub(super) id: String,
    pub(super) state: String,
    /// How often each of [`EFFECTS`] has happened.
    pub(super) counts: [u64; EFFECTS.len()],
    pub(super) attempts: Vec<Attempt>,
    /// The attempt that has written the answer, as the answer itself says.
    pub(super) answered_by: Option<u32>,
    /// Every try of a request had the same key, and had one.
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
            "completed" => done != [last] || self.answered_by != last,
            _ => !done.is_empty(),
        }
    }

    /// How often the effects of a class have happened.
    pub(super) fn counts_of(&self, class: Class) -> impl Iterator<Item = u64> {
        EFFECTS.iter().zip(self.counts).filter(move |((_, of), _)| *of == class).map(|(_, count)| count)
    }

    /// How often the call was made, as the receiver saw it.
    pub(super) fn outside(&self) -> u64 {
        self.counts_of(Class::Outside).sum()
    }

    /// How often the deferred request was sent, as the receiver saw it.
    pub(super) fn deferred(&self) -> u64 {
        self.counts_of(Class::Deferred).sum()
    }
}

/// Asks the host, and the server that was called.
pub(super) async fn look(client: &Client, receiver: &Receiver, function: &str, id: String) -> anyhow::Result<Seen> {
    let message = client.message(&id).await?;
    let trace = client.trace(&id).await?;
    let found = client.call(function, &json!({ "count": id }), PATIENCE).await?;
    let count = |name: &str| found.get(name).and_then(Value::as_u64).with_context(|| format!("no {name} in {found}"));
    let [keys, deferred] = [receiver.keys(&id), receiver.keys(&format!("deferred {id}"))];
    let is_one = |keys: &[String]| keys.iter().all(|key| !key.is_empty() && *key == keys[0]);
    let one_key = is_one(&keys) && is_one(&deferred);
    let answer = message.response.as_ref().and_then(|response| response["body"].as_str());
    let answer = answer.and_then(|body| serde_json::from_str::<Value>(body).ok());
    let answered_by = answer.and_then(|answer| u32::try_from(answer["attempt"].as_u64()?).ok());
    let answers = u64::from(message.response.is_some());
    let [calls, deferred] = [keys, deferred].map(|keys| keys.len() as u64);
    let counts = [count("before")?, count("state")?, count("after")?, count("receipts")?, answers, deferred, calls];
    let bounds = trace.calls.iter().fold(Bounds::default(), |sum, call| Bounds {
        least: sum.least + call.bounds.least,
        most: sum.most + call.bounds.most,
    });
    let intended = trace.calls.iter().filter(|call| call.state == "intended").count() as u64;
    Ok(Seen { id, state: message.state, counts, attempts: trace.attempts, answered_by, one_key, bounds, intended })
}
