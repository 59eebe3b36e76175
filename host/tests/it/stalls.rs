//! That nobody who holds the database waits for somebody who needs it.

use serde_json::json;

use crate::batches::{WRITE, misbehave, warm_up};
use crate::compiling::configured;
use crate::harness::{On, Semel, on_every_store, until};
use crate::ingest;

on_every_store!(memory_that_all_wait_for_is_never_waited_for_with_the_database_in_hand);

async fn all_end(semel: &Semel, functions: &[&str]) {
    until("the end of all", async || {
        for function in functions {
            let open = semel.count(function, "available").await + semel.count(function, "running").await;
            if open > 0 {
                return None;
            }
        }
        Some(())
    })
    .await;
}

async fn send(semel: &Semel, function: &str, order: &str, count: usize) {
    let line = format!("{}\n", json!({ "body": order }));
    ingest::send(semel, function, line.repeat(count)).await;
}

/// Memory for a few runs, messages that share commits, and others beside them that do not.
async fn memory_that_all_wait_for_is_never_waited_for_with_the_database_in_hand(on: On) {
    let mut semel = Semel::start_on(on, &["misbehave"]).await;
    semel.deploy(misbehave("alone").with("[limits]", "[flow]\nbatch = \"off\"\n\n[limits]")).await;
    configured(&mut semel, "memory = \"128MiB\"\n").await;
    warm_up(&semel, "misbehave", WRITE).await;
    for _ in 0..5 {
        send(&semel, "misbehave", WRITE, 200).await;
        send(&semel, "alone", WRITE, 100).await;
    }
    all_end(&semel, &["misbehave", "alone"]).await;
    assert_eq!(semel.count("misbehave", "completed").await, 1001);
    assert_eq!(semel.count("alone", "completed").await, 500);
}
