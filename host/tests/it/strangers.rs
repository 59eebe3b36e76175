//! Components that somebody else wrote, and not with the host's good in mind: each run ends by itself, as the one table
//! of the kinds says (`semel::experiment::failures::kinds`), and the next good message runs.

use semel::experiment::failures::kinds;
use serde_json::json;

use crate::harness::{Answer, Function, On, Semel, built, on_every_store};

on_every_store!(
    every_kind_of_misbehaviour_ends_its_own_run_and_no_other,
    an_answer_of_100_megabytes_ends_its_own_run,
    who_computes_for_long_keeps_nobody_waiting
);

/// `misbehave` with one attempt and half a second.
fn hasty() -> Function {
    built("misbehave").with("max_attempts = 2", "max_attempts = 1").with("timeout = \"1s\"", "timeout = \"500ms\"")
}

/// That a run ended in one of these ways, and that the same host then does what is asked of it.
async fn ends_alone(semel: &Semel, what: &str, ended: &Answer, outcomes: &[&str]) {
    let id = ended.id();
    let found = semel.outcomes(&id).await;
    assert!(found.len() == 1 && outcomes.contains(&found[0].as_str()), "{what}: {found:?}, {}", ended.text());
    let state = if found == ["completed"] { "completed" } else { "dead" };
    assert_eq!(semel.state(&id).await, state, "{what}");
    assert_eq!(semel.starts(&id), [1], "{what}");
    assert_eq!(semel.call("counter", what).await.ok(), json!({ "counter": what, "count": 1 }), "after {what}");
}

async fn every_kind_of_misbehaviour_ends_its_own_run_and_no_other(on: On) {
    let semel = Semel::start_on(on, &["counter", "receipts"]).await;
    semel.deploy(hasty()).await;
    semel.deploy(hasty().named("thirsty").with("[limits]", "[limits]\nfuel = 5_000_000")).await;
    let process = semel.process();
    for kind in kinds::ALL {
        let ended = semel.call(if kind.thirsty { "thirsty" } else { "misbehave" }, &kind.body()).await;
        ends_alone(&semel, kind.name, &ended, kind.outcomes).await;
    }
    assert_eq!(semel.sql("SELECT COUNT(*) FROM misbehaviour").await, json!([[0]]));
    assert_eq!(semel.in_store::<i64>("SELECT COUNT(*) FROM semel_messages WHERE function = 'receipts'").await, 0);
    assert_eq!(semel.process(), process, "it is the process that it was");
}

/// There is memory for it in the guest, and none of it reaches the database or the client.
async fn an_answer_of_100_megabytes_ends_its_own_run(on: On) {
    let semel = Semel::start_on(on, &["counter"]).await;
    semel.deploy(hasty().with("64MiB", "256MiB").with("500ms", "5s")).await;
    let ended = semel.call("misbehave", r#"{"do": "huge-answer"}"#).await;
    assert!(ended.body.len() < 4 << 10, "{} bytes", ended.body.len());
    ends_alone(&semel, "huge-answer", &ended, &["trapped", "failed"]).await;
}

/// More of them than there are cores: they share what there is with all others, and the host itself is not among those.
async fn who_computes_for_long_keeps_nobody_waiting(on: On) {
    let semel = Semel::start_on(on, &["counter"]).await;
    semel.deploy(built("misbehave").with("timeout = \"1s\"", "timeout = \"30s\"\nlease = \"60s\"")).await;
    for _ in 0..4 {
        let id = semel.send("misbehave", r#"{"do": "loop"}"#).await;
        semel.until_started(&id, 1).await;
    }
    for count in 1..=20 {
        assert_eq!(semel.call("counter", "apples").await.ok()["count"], count);
    }
    assert_eq!(semel.count("misbehave", "running").await, 4, "all that was done before any of them ended");
}
