//! `semel check`: a message runs twice, nothing of it is left, and what differed is said.

use semel::message::Usage;
use semel::store::Commit;
use serde_json::json;
use tokio::sync::Notify;

use crate::calling;
use crate::harness::{On, Semel, on_every_store, until};
use crate::outside::{Server, Then};
use crate::store::{Bench, bounds, lane};

on_every_store!(
    a_checked_message_leaves_nothing_and_does_the_same_twice,
    a_check_publishes_nothing_and_not_even_what_was_published_before,
    what_differs_is_named_and_what_cannot_be_checked_is_refused,
    a_check_calls_nobody_and_says_whom_it_wanted_to_call,
    a_message_that_runs_is_not_disturbed_by_its_check,
    a_rehearsal_has_no_commit,
);

/// Rows of every table that a message leaves something in.
async fn rows(semel: &Semel) -> Vec<i64> {
    let tables = ["messages", "queue", "history", "attempts", "keys", "decisions", "state"];
    let of_one_database = match semel.on {
        On::Sqlite => &[][..],
        On::Postgres => &["guard", "published_groups", "rehearsals", "calls"][..],
        On::Mariadb => &["rehearsals", "calls"][..],
    };
    let mut rows = Vec::new();
    for table in tables.iter().chain(of_one_database) {
        rows.push(semel.in_store(&format!("SELECT count(*) FROM semel_{table}")).await);
    }
    rows
}

/// Two runs of the same do the same, and leave nothing.
async fn a_checked_message_leaves_nothing_and_does_the_same_twice(on: On) {
    let semel = Semel::start_on(on, &["counter", "transfer", "receipts"]).await;
    let before = rows(&semel).await;
    let checked = semel.cli(&["check", "counter", "visits"]).await;
    assert!(checked.ok().contains("both runs did the same"), "{checked:?}");
    // What it publishes has the same ids, and reaches nobody.
    let order = r#"{"from": "alice", "to": "bob", "amount": 10}"#;
    let checked = semel.cli(&["check", "transfer", order, "--json"]).await.json();
    let asked = checked["runs"][0]["steps"].to_string();
    assert!(checked["same"] == true && asked.contains("publish"), "{checked:#}");
    assert_eq!(rows(&semel).await, before);
    assert_eq!(semel.sql("SELECT COUNT(*) FROM counters").await, json!([[0]]));
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
    assert_eq!(semel.outcomes(&done.id()).await, ["completed"], "no attempt is counted");
}

/// A message that has published, and is checked: its events are in the queue under the ids that a check makes again.
async fn a_check_publishes_nothing_and_not_even_what_was_published_before(on: On) {
    let semel = Semel::start_on(on, &["sqlshell", "receipts"]).await;
    let script = json!({ "statements": [
        { "sql": "INSERT INTO scratch (id, value) SELECT count(*) + 1, NULL FROM scratch", "execute": true },
        { "state_add": ["visits", 1] },
        { "publish": { "topic": "receipts", "body": "paid" } },
    ] });
    let done = semel.call("sqlshell", &script.to_string()).await;
    until("the receipt", async || (semel.count("receipts", "completed").await == 1).then_some(())).await;
    let before = rows(&semel).await;
    let checked = semel.cli(&["check", "sqlshell", &done.id(), "--json"]).await.json();
    assert_eq!((&checked["same"], &checked["runs"][0]["outcome"]), (&json!(true), &json!("completed")), "{checked:#}");
    let steps = checked["runs"][1]["steps"].to_string();
    assert!(steps.contains("Sum(2)") && steps.contains("publish"), "{steps}");
    assert_eq!(rows(&semel).await, before);
    assert_eq!(semel.sql("SELECT count(*) FROM scratch").await, json!([[1]]));
    assert_eq!(semel.count("receipts", "completed").await, 1);
}

async fn what_differs_is_named_and_what_cannot_be_checked_is_refused(on: On) {
    let semel = Semel::start_on(on, &["sqlshell", "counter"]).await;
    let random = if on == On::Mariadb { "rand" } else { "random" };
    let random = &format!(r#"{{"statements": [{{"sql": "SELECT {random}()"}}]}}"#);
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

/// Outside calls are refused, and shown; none is in the ledger.
async fn a_check_calls_nobody_and_says_whom_it_wanted_to_call(on: On) {
    let (semel, server) = (Semel::start_on(on, &[]).await, Server::start(calling::OK).await);
    let (authority, granted) = (server.address.to_string(), format!("\"http://{}\"", server.address));
    let body = "(call $call) (call $line) (i32.const 0)";
    semel.deploy(calling::function("mailer", &authority, &granted, body)).await;
    let checked = semel.cli(&["check", "mailer", "", "--json"]).await.json();
    assert_eq!(checked["calls"], json!([format!("POST http://{authority}/mail")]), "{checked:#}");
    assert_eq!((server.connections(), &semel.get("/v1/ledger").await.ok()["calls"]), (0, &json!([])));
}

/// It waits for an answer while it is checked, and then goes on as if nothing had been.
async fn a_message_that_runs_is_not_disturbed_by_its_check(on: On) {
    let answer: &Notify = Box::leak(Box::default());
    let Then::Say(text) = calling::OK else { panic!("an answer") };
    let (semel, server) = (Semel::start_on(on, &[]).await, Server::start(Then::Wait(answer, text)).await);
    let waits = calling::local("waits", server.port(), "(call $call) (call $count) (i32.const 0)");
    semel.deploy(calling::patient(waits)).await;
    let id = semel.send("waits", "").await;
    until("the request", async || (server.connections() == 1).then_some(())).await;
    let before = rows(&semel).await;
    let checked = semel.cli(&["check", "waits", &id, "--json"]).await.json();
    assert_eq!((&checked["same"], &checked["runs"][0]["outcome"]), (&json!(true), &json!("completed")), "{checked:#}");
    assert_eq!((semel.state(&id).await, rows(&semel).await), ("running".to_owned(), before));
    answer.notify_one();
    assert_eq!(semel.until_settled(&id).await["state"], "completed");
    assert_eq!((semel.outcomes(&id).await, server.connections()), (vec!["completed".to_owned()], 1));
    let counted: i64 = semel.in_store("SELECT count(*) FROM semel_state").await;
    assert_eq!(counted, 1);
}

/// Even with a claim that holds, which it leaves as it was.
async fn a_rehearsal_has_no_commit(on: On) {
    let bench = Bench::new(on).await;
    bench.enqueue("a").await;
    let claim = bench.claim_one(lane()).await;
    for writes in [true, false] {
        let mut session = bench.store.rehearsal();
        session.enter(&claim);
        if writes {
            session.query("INSERT INTO scratch VALUES (1)".into(), vec![], bounds()).await.expect("a row");
        }
        session.leave(None, Usage::default());
        assert_eq!(session.commit().await, Commit::RolledBack);
    }
    assert_eq!(bench.rows().await, 0);
    assert_eq!(bench.write_and_commit(&claim).await, Commit::Committed);
    assert_eq!(bench.rows().await, 1);
}
