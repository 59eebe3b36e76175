//! Idempotency keys: how long each policy remembers, what a repeated request gets, and that retention forgets no key.

use serde_json::json;

use crate::harness::{Function, On, Semel, built, on_every_store, until};

on_every_store!(
    a_repeated_request_gets_the_answer_of_the_first,
    while_active_a_key_stands_for_the_message_that_waits_or_runs,
    retention_forgets_messages_but_no_key_before_its_window
);

fn with_policy(policy: &str) -> Function {
    built("counter").with("[limits]", &format!("[idempotency]\npolicy = \"{policy}\"\n\n[limits]"))
}

async fn a_repeated_request_gets_the_answer_of_the_first(on: On) {
    let semel = Semel::start_on(on, &["counter"]).await;
    let first = semel.post("/fn/counter", "a").key("k").wait(30).send().await;
    assert_eq!((&first.ok()["count"], first.header("idempotent-replayed")), (&json!(1), ""));
    for _ in 0..3 {
        let again = semel.post("/fn/counter", "a").key("k").wait(30).send().await;
        assert_eq!((again.text(), again.id()), (first.text(), first.id()));
        assert_eq!(again.header("idempotent-replayed"), "true");
        assert_eq!(again.header("content-type"), first.header("content-type"));
    }
    let receipt = semel.post("/fn/counter", "a").key("k").send().await;
    assert_eq!(receipt.status, 202);
    assert_eq!(receipt.json(), json!({ "id": first.id(), "state": "completed", "duplicate": true }));
    assert_eq!(semel.call("counter", "a").await.ok()["count"], 2);
}

async fn while_active_a_key_stands_for_the_message_that_waits_or_runs(on: On) {
    let semel = Semel::start_on(on, &[]).await;
    semel.deploy(with_policy("while-active")).await;
    semel.post("/v1/functions/counter/pause", "").send().await.ok();
    let first = semel.post("/fn/counter", "a").key("k").send().await;
    let again = semel.post("/fn/counter", "a").key("k").send().await;
    assert_eq!((again.id(), &again.json()["duplicate"]), (first.id(), &json!(true)));
    assert!(semel.post("/fn/counter", "b").key("k").send().await.problem(422).contains("Idempotency-Key"));
    semel.post("/v1/functions/counter/resume", "").send().await.ok();
    semel.until_settled(&first.id()).await;
    let second = semel.post("/fn/counter", "b").key("k").wait(30).send().await;
    assert_ne!(second.id(), first.id());
    assert_eq!(second.ok()["count"], 1);
}

/// A host that keeps what has ended for a second only.
async fn forgetful(on: On) -> Semel {
    let mut semel = Semel::start_on(on, &[]).await;
    semel.kill().await;
    let keep = "[retention]\ncompleted = \"1s\"\ndead = \"1s\"\ncancelled = \"1s\"\n";
    std::fs::write(semel.folder().join("semel.toml"), keep).expect("a file");
    semel.restart().await;
    semel
}

async fn until_forgotten(semel: &Semel, id: &str) {
    until(&format!("{id} to be forgotten"), async || {
        (semel.get(&format!("/v1/messages/{id}")).await.status == 404).then_some(())
    })
    .await;
}

async fn retention_forgets_messages_but_no_key_before_its_window(on: On) {
    let semel = forgetful(on).await;
    semel.deploy(with_policy("window")).await;
    semel.deploy(with_policy("forever").named("eternal").with("/count/", "/eternal/")).await;
    semel.deploy(with_policy("while-active").named("active").with("/count/", "/active/")).await;
    semel.deploy(built("misbehave")).await;
    let keyed = semel.post("/fn/counter", "a").key("k").wait(30).send().await;
    let eternal = semel.post("/fn/eternal", "b").key("k").wait(30).send().await;
    let active = semel.post("/fn/active", "c").key("k").wait(30).send().await;
    let dead = semel.call("misbehave", r#"{"do": "reject"}"#).await;
    let cancelled = semel.post("/fn/counter", "d").header("semel-delay", "1h").send().await;
    semel.post(&format!("/v1/messages/{}/cancel", cancelled.id()), "").send().await.ok();
    let mut plain = Vec::new();
    for _ in 0..450 {
        plain.push(semel.send("counter", "e").await); // More than two steps of the keeper.
    }
    for id in [&eternal, &active, &dead, &cancelled].map(|answer| answer.id()).iter().chain(&plain) {
        until_forgotten(&semel, id).await;
    }
    let rows = async |table: &str| semel.in_store::<i64>(&format!("SELECT COUNT(*) FROM {table}")).await;
    assert_eq!(rows("semel_messages").await, 1, "the one whose key still stands for it");
    assert_eq!((rows("semel_history").await, rows("semel_attempts").await, rows("semel_decisions").await), (1, 1, 0));
    assert_eq!(rows("semel_keys").await, 2, "the window's and the eternal one");

    let again = semel.post("/fn/counter", "a").key("k").wait(30).send().await;
    assert_eq!((again.id(), again.text()), (keyed.id(), keyed.text()));
    let again = semel.post("/fn/eternal", "b").key("k").wait(30).send().await;
    assert_eq!(again.status, 202, "its answer is gone, but it is not done twice");
    assert_eq!(again.json(), json!({ "id": eternal.id(), "state": "completed", "duplicate": true }));
    semel.post("/fn/eternal", "other").key("k").send().await.problem(422);
    assert_eq!(semel.post("/fn/active", "c").key("k").wait(30).send().await.ok()["count"], 2, "a new one");
}
