//! Messages whose calls of the transaction travel behind those of the message before, since all before took as many.

use futures_util::future::join_all;

use crate::harness::{On, Semel, on_every_store, until};

on_every_store!(whoever_asks_for_more_than_all_before_is_counted_once);

/// The first message of a counter makes three calls, every other one two.
async fn whoever_asks_for_more_than_all_before_is_counted_once(on: On) {
    let mut semel = Semel::start_on(on, &["counter"]).await;
    semel.stop().await;
    let mut idle = semel.serve(&["--no-workers"]).await;
    for _ in 0..14 {
        join_all((0..100).map(|_| semel.send("counter", "old"))).await;
    }
    let mut last = Vec::new();
    for n in 0..40 {
        let counter = if n % 10 == 5 { format!("new {n}") } else { "old".into() };
        last.push(semel.send("counter", &counter).await);
    }
    idle.kill().await.expect("a process");
    semel.restart().await;
    for id in &last {
        assert_eq!(semel.until_settled(id).await["state"], "completed");
    }
    // One that made a counter while another one did is tried again, after those that came later.
    until("the end of all", async || (semel.count("counter", "completed").await == 1440).then_some(())).await;
    assert_eq!(semel.call("counter", "old").await.ok()["count"], 1400 + 36 + 1);
    for n in [5, 15, 25, 35] {
        assert_eq!(semel.call("counter", &format!("new {n}")).await.ok()["count"], 2);
    }
}
