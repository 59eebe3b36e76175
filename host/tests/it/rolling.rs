//! Versions change while work comes in: every message runs on one of them, once, and nothing is lost in between.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use futures_util::future::join_all;
use reqwest::Method;
use serde_json::json;

use crate::harness::{Function, On, Semel, built, on_every_store, until};

on_every_store!(
    rolling_forward_under_load_loses_and_doubles_nothing,
    rolling_back_and_forward_under_load_loses_and_doubles_nothing
);

const SENDERS: usize = 4;

/// The two versions: they differ in a limit that neither comes near.
fn version(n: u64) -> Function {
    if n.is_multiple_of(2) { built("counter").with("timeout = \"2s\"", "timeout = \"3s\"") } else { built("counter") }
}

/// How often, from the environment, so that `make torture` can do more of it than a test has time for.
fn rolls() -> u64 {
    std::env::var("ROLLS").ok().map_or(10, |rolls| rolls.parse().expect("ROLLS is a number"))
}

/// Requests with keys for as long as the versions roll, each until something has run on the version that `to` names; then each
/// accepted one must have counted, once.
async fn under_load(semel: &Semel, to: impl Fn(u64) -> u64, roll: impl AsyncFn(u64)) {
    let done = AtomicBool::new(false);
    let send = async |sender: usize| {
        let mut accepted = Vec::new();
        for n in 0.. {
            if done.load(Relaxed) {
                break;
            }
            let answer = semel.post("/count/visits", "").key(&format!("{sender}-{n}")).send().await;
            assert_eq!(answer.status, 202, "{}", answer.text());
            accepted.push(answer.id());
        }
        accepted
    };
    let rolling = async {
        for n in 1..=rolls() {
            let ran = format!("SELECT COUNT(*) FROM semel_attempts WHERE function = 'counter' AND version = {}", to(n));
            let before: i64 = semel.in_store(&ran).await;
            roll(n).await;
            until("a run on the version", async || (semel.in_store::<i64>(&ran).await > before).then_some(())).await;
        }
        done.store(true, Relaxed);
    };
    let (accepted, ()) = tokio::join!(join_all((0..SENDERS).map(send)), rolling);
    let ids: BTreeSet<String> = accepted.into_iter().flatten().collect();
    let sent = ids.len() as u64;
    until("the end of all", async || (semel.count("counter", "completed").await >= sent).then_some(())).await;
    eprintln!("{} rolls, {sent} messages", rolls());

    assert_eq!(semel.count("counter", "completed").await, sent);
    assert_eq!(semel.sql("SELECT n FROM counters").await, json!([[sent]]));
    let attempts = "SELECT COUNT(*) FROM semel_attempts WHERE function = 'counter'";
    let completed = format!("{attempts} AND outcome = 'completed'");
    assert_eq!(semel.in_store::<i64>(&completed).await, sent as i64, "each ran once to its end");
    // Where guests run side by side, several may find that there is no counter yet: all but one of these try again.
    let again =
        "(error LIKE '%duplicate key%' OR error LIKE 'Duplicate entry%' OR error LIKE '%has made the counter%')";
    let others = format!("{attempts} AND outcome <> 'completed' AND NOT {again}");
    assert_eq!(semel.in_store::<i64>(&others).await, 0, "nothing else came in between");
}

async fn rolling_forward_under_load_loses_and_doubles_nothing(on: On) {
    let semel = Semel::start_on(on, &["counter"]).await;
    let to = |n| n + 1;
    under_load(&semel, to, async |n| {
        let deployed = semel.deploy(version(to(n))).await;
        assert_eq!(deployed["version"], to(n));
    })
    .await;
}

async fn rolling_back_and_forward_under_load_loses_and_doubles_nothing(on: On) {
    let semel = Semel::start_on(on, &["counter"]).await;
    semel.deploy(version(2)).await;
    let to = |n| 2 - n % 2;
    under_load(&semel, to, async |n| {
        let request = semel.request(Method::POST, "/v1/functions/counter/rollback");
        let rolled = request.header("content-type", "application/json").body(json!({ "to": to(n) }).to_string());
        assert_eq!(rolled.send().await.ok()["version"], to(n));
    })
    .await;
    assert_eq!(semel.in_store::<i64>("SELECT COUNT(*) FROM semel_versions WHERE function = 'counter'").await, 2);
}
