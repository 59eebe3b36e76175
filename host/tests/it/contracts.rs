//! The two contracts, under SIGKILL. Starts are counted by a witness outside the database.

use std::time::Duration;

use serde_json::json;

use crate::harness::{Function, On, Semel, built, on_every_store};

on_every_store!(
    a_begin_once_run_that_fails_is_dead_at_once,
    a_begin_once_run_whose_host_is_killed_is_in_doubt_for_good,
    a_finish_once_run_whose_host_is_killed_runs_again_and_counts_once,
    a_host_that_is_asked_to_stop_lets_its_runs_end,
    a_message_that_kills_its_host_is_buried_and_its_neighbours_are_done
);

/// `misbehave` that may take its time: a kill always comes before its end. But not so much that nobody can wait for the
/// end of its lease, by which a killed host is known where others may live on.
fn slow() -> Function {
    built("misbehave").with(r#"timeout = "1s""#, "timeout = \"4s\"\nlease = \"6s\"")
}

fn sleep(millis: u64) -> String {
    json!({ "do": "sleep-loop", "millis": millis }).to_string()
}

async fn a_begin_once_run_that_fails_is_dead_at_once(on: On) {
    let semel = Semel::start_on(on, &[]).await;
    let deployed = semel.deploy(built("misbehave").contract("begin-once")).await;
    assert_eq!((&deployed["contract"], &deployed["max_attempts"]), (&json!("begin-once"), &json!(2)));
    for (what, outcome) in [("error", "failed"), ("write-then-trap", "trapped"), ("loop", "timed-out")] {
        let ended = semel.call("misbehave", &json!({ "do": what }).to_string()).await;
        assert!(ended.problem(502).starts_with(outcome), "{what}: {}", ended.text());
        assert_eq!(semel.outcomes(&ended.id()).await, [outcome], "{what} was tried again");
        assert_eq!(semel.starts(&ended.id()), [1], "{what}");
        assert_eq!(semel.state(&ended.id()).await, "dead");
    }
    let good = semel.call("misbehave", r#"{"do": "write"}"#).await;
    assert_eq!(good.status, 200, "{}", good.text());
    assert_eq!(semel.sql("SELECT message_id FROM misbehaviour").await, json!([[good.id()]]));
}

/// Nobody knows how far it came, so nobody but a person may say that it runs again.
async fn a_begin_once_run_whose_host_is_killed_is_in_doubt_for_good(on: On) {
    let mut semel = Semel::start_on(on, &[]).await;
    semel.deploy(slow().contract("begin-once")).await;
    let id = semel.post("/fn/misbehave", sleep(15_000)).key("once").send().await.id();
    semel.until_started(&id, 1).await;
    semel.kill().await;
    semel.restart().await;
    let message = semel.until_settled(&id).await;
    assert_eq!(message["state"], "in-doubt");
    assert_eq!(message["last_error"]["kind"], "host-lost");
    assert_eq!(semel.outcomes(&id).await, ["host-lost"]);
    let waited = semel.post("/fn/misbehave", sleep(15_000)).key("once").wait(30).send().await;
    assert!(waited.problem(504).starts_with("host-lost: "));
    assert_eq!(waited.id(), id, "the same request is the same message");

    // Long enough for several looks at the queue; then once more from the start.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    semel.kill().await;
    semel.restart().await;
    let next = semel.call("misbehave", r#"{"do": "write"}"#).await;
    assert_eq!(next.status, 200, "{}", next.text());
    assert_eq!(semel.state(&id).await, "in-doubt");
    assert_eq!(semel.starts(&id), [1]);
    assert_eq!(semel.sql("SELECT message_id FROM misbehaviour").await, json!([[next.id()]]));
}

async fn a_finish_once_run_whose_host_is_killed_runs_again_and_counts_once(on: On) {
    let mut semel = Semel::start_on(on, &[]).await;
    semel.deploy(slow()).await;
    let id = semel.send("misbehave", &sleep(2_000)).await;
    semel.until_started(&id, 1).await;
    assert_eq!(semel.state(&id).await, "running");
    semel.kill().await;
    let running: String = semel.in_store("SELECT state FROM semel_queue").await;
    assert_eq!(running, "running", "the kill came too late to hit it");
    semel.restart().await;
    let message = semel.until_settled(&id).await;
    assert_eq!((&message["state"], &message["attempt"]), (&json!("completed"), &json!(2)));
    assert_eq!(semel.outcomes(&id).await, ["host-lost", "completed"]);
    assert_eq!(semel.starts(&id), [1, 2]);
    assert_eq!(semel.sql("SELECT message_id, attempt FROM misbehaviour").await, json!([[id, 2]]));
}

/// A polite end is no kill: what runs may end, and is not run again.
async fn a_host_that_is_asked_to_stop_lets_its_runs_end(on: On) {
    let mut semel = Semel::start_on(on, &[]).await;
    semel.deploy(slow()).await;
    let id = semel.send("misbehave", &sleep(1_000)).await;
    semel.until_started(&id, 1).await;
    semel.stop().await;
    let state: String = semel.in_store("SELECT state FROM semel_history").await;
    assert_eq!(state, "completed");
    semel.restart().await;
    assert_eq!(semel.outcomes(&id).await, ["completed"]);
    assert_eq!(semel.starts(&id), [1]);
}

/// A message whose start takes the host down, every time, in the middle of a hundred others, of which those beside it
/// are slow and die with it. It is buried when its attempts are used up. The others were in flight with it at most once:
/// from then on it runs alone.
async fn a_message_that_kills_its_host_is_buried_and_its_neighbours_are_done(on: On) {
    let mut semel = Semel::start_on(on, &["counter"]).await;
    semel.deploy(slow().with("max_attempts = 2", "max_attempts = 3")).await;
    let (mut neighbours, mut poison) = (Vec::new(), String::new());
    for n in 0..=100 {
        let request = match n {
            50 => semel.post("/fn/misbehave", sleep(15_000)),
            46..=54 => semel.post("/fn/misbehave", sleep(400)),
            _ => semel.post("/fn/counter", format!("neighbour {n}")),
        };
        let id = request.header("semel-delay", "1s").send().await.id();
        if n == 50 { poison = id } else { neighbours.push(id) }
    }
    for kills in 1..=3 {
        semel.until_started(&poison, kills).await;
        semel.kill().await;
        semel.restart().await;
    }
    let message = semel.until_settled(&poison).await;
    assert_eq!((&message["state"], &message["attempt"]), (&json!("dead"), &json!(3)));
    assert_eq!(message["last_error"]["kind"], "host-lost");
    assert_eq!(semel.outcomes(&poison).await, ["host-lost"; 3]);
    assert_eq!(semel.starts(&poison), [1, 2, 3]);

    for id in &neighbours {
        let message = semel.until_settled(id).await;
        assert_eq!(message["state"], "completed", "{message}");
        assert!(message["attempt"].as_u64().expect("attempts") <= 2, "{message}");
    }
    assert_eq!(neighbours.len(), 100);
    let integer = if on == On::Mariadb { "SIGNED" } else { "BIGINT" };
    let sum = format!("SELECT COUNT(*), CAST(SUM(n) AS {integer}) FROM counters");
    assert_eq!(semel.sql(&sum).await, json!([[92, 92]]));
    assert_eq!(semel.sql("SELECT COUNT(*) FROM misbehaviour").await, json!([[8]]));
}
