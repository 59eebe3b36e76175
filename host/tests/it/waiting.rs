//! One writer, many who want it: waiting is nobody's fault, and costs neither time nor an attempt.

use std::time::Instant;

use futures_util::future::join_all;
use serde_json::json;

use crate::harness::{Semel, built};

/// A statement that holds the writer for a while.
fn counting(to: u64) -> String {
    let count =
        format!("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {to}) SELECT max(i) FROM n");
    json!({ "statements": [{ "sql": count }] }).to_string()
}

/// Each of ten runs needs the writer for a good part of its timeout, so the last of them wait longer than they may run.
#[tokio::test]
async fn waiting_for_the_database_costs_neither_timeout_nor_attempt() {
    let semel = Semel::start(&[]).await;
    semel.deploy(built("sqlshell").with(r#"timeout = "5s""#, r#"timeout = "3s""#)).await;
    // How far this machine counts in a second.
    let (mut to, mut took) = (100_000, 0.0);
    while took < 0.5 {
        to *= 2;
        let began = Instant::now();
        assert_eq!(semel.call("sqlshell", &counting(to)).await.status, 200);
        took = began.elapsed().as_secs_f64();
    }
    let began = Instant::now();
    let statement = counting(to);
    // All at once: one that came after another was accepted would not wait behind it.
    for id in join_all((0..10).map(|_| semel.send("sqlshell", &statement))).await {
        let message = semel.until_settled(&id).await;
        assert_eq!(message["state"], "completed", "{message}");
        assert_eq!(message["attempt"], 1, "{message}");
    }
    assert!(
        began.elapsed().as_secs_f64() > 3.0,
        "nobody had to wait longer than a run may take: the test shows nothing"
    );
}
