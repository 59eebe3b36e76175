//! `semel check`: a message runs twice, nothing of it is left, and what differed is said.

use serde_json::json;

use crate::calling;
use crate::harness::{On, Semel};
use crate::outside::Server;

/// Two runs of the same do the same, and leave nothing.
#[tokio::test]
async fn a_checked_message_leaves_nothing_and_does_the_same_twice() {
    let semel = Semel::start(&["counter", "transfer", "receipts"]).await;
    let checked = semel.cli(&["check", "counter", "visits"]).await;
    assert!(checked.ok().contains("both runs did the same"), "{checked:?}");
    assert_eq!(semel.sql("SELECT COUNT(*) FROM counters").await, json!([[0]]));
    assert_eq!(semel.count("counter", "completed").await, 0);
    // One that was accepted, by its id: the count of before is still there, and not more.
    let done = semel.call("counter", "visits").await;
    let checked = semel.cli(&["check", "counter", &done.id(), "--json"]).await.json();
    assert_eq!((&checked["same"], &checked["runs"][1]["outcome"]), (&json!(true), &json!("completed")), "{checked:#}");
    assert_eq!(
        checked["runs"][0]["answer"],
        json!(r#"application/json {"counter":"visits","count":2}"#),
        "{checked:#}"
    );
    assert_eq!(semel.sql("SELECT n FROM counters").await, json!([[1]]));
    // What it publishes has the same ids, and reaches nobody.
    let order = r#"{"from": "alice", "to": "bob", "amount": 10}"#;
    let checked = semel.cli(&["check", "transfer", order, "--json"]).await.json();
    let asked = checked["runs"][0]["steps"].to_string();
    assert!(checked["same"] == true && asked.contains("publish"), "{checked:#}");
    assert_eq!(semel.count("receipts", "completed").await + semel.count("receipts", "available").await, 0);
}

#[tokio::test]
async fn what_differs_is_named_and_what_cannot_be_checked_is_refused() {
    let semel = Semel::start(&["sqlshell", "counter"]).await;
    let random = r#"{"statements": [{"sql": "SELECT random()"}]}"#;
    let checked = semel.cli(&["check", "sqlshell", random]).await;
    assert_eq!(checked.code, 1, "{checked:?}");
    assert!(checked.stdout.contains("differs: answer to statement 1"), "{checked:?}");
    let nobody = semel.cli(&["check", "nobody", "body"]).await;
    assert!(nobody.refusal().contains("no function"), "{nobody:?}");
    let unknown = semel.cli(&["check", "counter", &"0".repeat(32)]).await;
    assert!(unknown.refusal().contains("no message has the id"), "{unknown:?}");
    let of_another = semel.call("sqlshell", random).await;
    let refused = semel.cli(&["check", "counter", &of_another.id()]).await;
    assert!(refused.refusal().contains("one of \"sqlshell\""), "{refused:?}");
    semel.post("/v1/functions/counter/check", r#"{"body": "a", "message": "b"}"#).send().await.problem(400);
}

/// Outside calls are refused, and shown.
#[tokio::test]
async fn a_check_calls_nobody_and_says_whom_it_wanted_to_call() {
    let (semel, server) = (Semel::start(&[]).await, Server::start(calling::OK).await);
    let (authority, granted) = (server.address.to_string(), format!("\"http://{}\"", server.address));
    let body = "(call $call) (call $line) (i32.const 0)";
    semel.deploy(calling::function("mailer", &authority, &granted, body)).await;
    let checked = semel.cli(&["check", "mailer", "", "--json"]).await.json();
    assert_eq!(checked["calls"], json!([format!("POST http://{authority}/mail")]), "{checked:#}");
    assert_eq!(server.connections(), 0);
}

/// A server lends a guest's transaction to a claim, and to nobody else.
#[tokio::test]
async fn a_check_on_postgres_is_refused() {
    let semel = Semel::start_on(On::Postgres, &["counter"]).await;
    let refused = semel.cli(&["check", "counter", "visits"]).await;
    assert!(refused.refusal().contains("database is a file"), "{refused:?}");
}
