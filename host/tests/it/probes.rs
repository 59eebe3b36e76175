//! `/readyz`: whether the database takes anything, looked at by writing to it.

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _, Executor as _};

use crate::harness::{Semel, until};

/// Somebody else holds the write lock: nothing can be accepted, and nothing is. When the lock is free again the host
/// goes on without a restart.
#[tokio::test]
async fn a_host_whose_database_takes_nothing_is_not_ready() {
    let semel = Semel::start(&["counter"]).await;
    let options = SqliteConnectOptions::new().filename(semel.folder().join("test.db"));
    let mut other = options.connect().await.expect("the database file");
    other.execute("BEGIN IMMEDIATE").await.expect("the write lock");
    let (ready, sent) = tokio::join!(
        until("the end of readiness", async || {
            let answer = semel.get("/readyz").await;
            (answer.status != 200).then_some(answer)
        }),
        semel.post("/fn/counter", "visits").send(),
    );
    ready.problem(503);
    assert_eq!(ready.header("retry-after"), "1");
    sent.problem(503);
    assert_eq!(semel.get("/healthz").await.status, 200, "it is alive all the same");
    assert!(semel.get("/metrics").await.text().contains("semel_recovered_total"), "numbers are there all the same");
    other.execute("ROLLBACK").await.expect("an end");
    other.close().await.expect("an end");
    until("readiness", async || (semel.get("/readyz").await.status == 200).then_some(())).await;
    assert_eq!(semel.call("counter", "visits").await.ok()["count"], 1, "the refused one is not in the queue");
    assert_eq!(semel.in_file::<i64>("SELECT COUNT(*) FROM semel_keys").await, 0, "looking leaves nothing behind");
}
