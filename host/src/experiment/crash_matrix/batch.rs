//! Messages that share a commit: eight, of which the fourth is hit.
//!
//! They wait until all of them are there, so that the host claims them at once, and it knows from one that came before what a
//! message takes. The witness says whether the transaction was really theirs together: a fault that hit a message alone
//! would show nothing of the others.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use super::super::client::Client;
use super::super::witness::Witness;
use super::cells::Harm;
use super::measure::Seen;
use super::trial::send;
use crate::crash::Point;

/// `effects`, without a server that it may call.
pub(super) const FUNCTION: &str = "effects-together";
/// As many as a host lets share the first commit of a function.
const MESSAGES: usize = 8;
/// The one that is hit has others before it and behind it.
pub(super) const HIT: usize = 3;
/// Statements of a message.
const WRITES: usize = 2;
/// Statements of the message before all of them, which counts what is not there.
const READS: usize = 3;
const PATIENCE: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(50);

/// How often a host comes to a point until the message that is to be hit is there, or the commit of all eight.
pub(super) fn times(point: Point) -> usize {
    match point {
        Point::RunStarted => 1 + HIT + 1,
        Point::RunWritten => READS + WRITES * HIT + 1,
        Point::RolledBack => 1,
        _ => 2,
    }
}

/// What the messages are told to do: nothing that cannot be undone, and the one that is hit fails where it must.
pub(super) fn orders(point: Point, harm: Harm) -> Vec<Value> {
    let mut orders = vec![json!({}); MESSAGES];
    orders[HIT] = json!({ "fail": u32::from(point == Point::RolledBack), "trap": u32::from(harm == Harm::Trap) });
    orders
}

/// Sends them so that they are claimed together. The host may die as soon as they are.
pub(super) async fn send_together(client: Client, orders: Vec<Value>) -> anyhow::Result<Vec<String>> {
    client.call(FUNCTION, &json!({ "count": "nobody" }), PATIENCE).await?;
    client.steer(FUNCTION, "pause").await?;
    let ids = send(&client, FUNCTION, orders).await?;
    let resume = async {
        while client.steer(FUNCTION, "resume").await.is_err() {
            sleep(POLL).await;
        }
    };
    timeout(PATIENCE, resume).await.context("the function does not go on")?;
    Ok(ids)
}

/// That it was a batch which was harmed, as far as the message that was hit and, if only that one ended badly, that it did.
pub(super) fn check(witness: &Path, harm: Harm, seen: &[Seen]) -> anyhow::Result<()> {
    let witness = Witness::read(witness)?;
    let together = seen.iter().take_while(|seen| witness.starts_together(&seen.id) > 0).count();
    ensure!(together > HIT, "only {together} messages ran in one transaction: the fault hit no batch");
    let again = seen.iter().filter(|seen| witness.repeats_an_attempt(&seen.id)).count();
    ensure!(again == 0, "{again} messages have an attempt that started more often than it may");
    let first = seen[HIT].attempts.first().map(|attempt| attempt.outcome.as_str());
    ensure!(harm != Harm::Trap || first == Some("trapped"), "the guest did not trap, but: {first:?}");
    Ok(())
}
