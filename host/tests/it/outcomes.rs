//! How runs end: every way has a name of its own, leaves nothing behind unless it ended well, and the next message runs.

use std::time::Duration;

use futures_util::future::join_all;
use semel::clock::Timestamp;
use semel::message::{message_id, published_event_id};
use serde_json::{Value, json};

use crate::harness::{On, Semel, built, on_every_store};

on_every_store!(
    every_bad_end_has_its_name_and_leaves_nothing,
    a_failed_message_is_tried_again_after_its_backoff_until_it_is_dead,
    forbidden_sql_ends_the_attempt_whatever_the_guest_says,
    sql_state_and_messages_are_kept_together_or_not_at_all,
    limits_of_the_manifest_fail_the_attempt,
    what_a_run_said_and_used_is_in_its_trace,
    fuel_ends_a_run_and_its_log_lines_are_kept,
    a_transfer_and_its_receipt_are_one,
    only_granted_topics_with_a_subscriber_can_be_published_to,
    page_views_are_counted_each_once
);

fn order(what: &str) -> String {
    json!({ "do": what }).to_string()
}

/// Each case of `misbehave` in turn, and after each a message that writes: those rows, and no others, are there in the
/// end.
async fn every_bad_end_has_its_name_and_leaves_nothing(on: On) {
    let semel = Semel::start_on(on, &["misbehave", "receipts"]).await;
    let mut good = Vec::new();
    for (what, outcome, status, attempts) in [
        ("error", "failed", 502, 2),
        ("reject", "refused", 422, 1),
        ("panic", "trapped", 502, 2),
        ("loop", "timed-out", 502, 2),
        ("allocate", "out-of-memory", 502, 2),
        ("write-then-trap", "trapped", 502, 2),
        ("write-then-error", "failed", 502, 2),
        ("swallow", "failed", 502, 2),
        ("publish-then-error", "failed", 502, 2),
    ] {
        let ended = semel.call("misbehave", &order(what)).await;
        let reason = ended.problem(status);
        assert!(reason.starts_with(&format!("{outcome}: ")), "{what}: {reason}");
        let id = ended.id();
        assert_eq!(semel.outcomes(&id).await, vec![outcome; attempts], "{what}");
        assert_eq!(semel.starts(&id).len(), attempts, "{what}");
        let message = semel.message(&id).await;
        assert_eq!((&message["state"], &message["attempt"]), (&json!("dead"), &json!(attempts)), "{what}");
        assert_eq!(message["last_error"]["kind"], outcome, "{what}");
        let next = semel.call("misbehave", &order("write")).await;
        assert_eq!(next.status, 200, "after {what}: {}", next.text());
        good.push(json!([next.id(), 1, "write"]));
    }
    good.sort_by_key(Value::to_string);
    let rows = semel.sql("SELECT message_id, attempt, what FROM misbehaviour ORDER BY message_id").await;
    assert_eq!(rows, json!(good));
    let published: i64 = semel.in_store("SELECT COUNT(*) FROM semel_messages WHERE function = 'receipts'").await;
    assert_eq!(published, 0, "what was published by an attempt that failed");
}

async fn a_failed_message_is_tried_again_after_its_backoff_until_it_is_dead(on: On) {
    let semel = Semel::start_on(on, &[]).await;
    let backoff = r#"backoff = { initial = "200ms", factor = 2.0, jitter = 0.0 }"#;
    let stubborn = built("misbehave").with("max_attempts = 2", "max_attempts = 3");
    semel.deploy(stubborn.with(r#"backoff = { initial = "50ms" }"#, backoff)).await;
    let id = semel.call("misbehave", &order("error")).await.id();
    let message = semel.message(&id).await;
    assert_eq!(message["last_error"], json!({ "kind": "failed", "message": "asked to fail" }));
    let attempts = semel.trace(&id).await["attempts"].take();
    let pause = |before: usize| {
        let time = |at: &Value| serde_json::from_value::<Timestamp>(at.clone()).expect("a time");
        time(&attempts[before + 1]["claimed_at"]).since(time(&attempts[before]["ended_at"]))
    };
    assert!(pause(0) >= Duration::from_millis(200), "{:?}", pause(0));
    assert!(pause(1) >= Duration::from_millis(400), "{:?}", pause(1));
    assert_eq!(attempts.as_array().expect("attempts").len(), 3);
    assert_eq!(semel.starts(&id), [1, 2, 3]);
}

/// A statement that may not be said is never hidden: not by a guest that goes on, and not by one that reports success.
async fn forbidden_sql_ends_the_attempt_whatever_the_guest_says(on: On) {
    let semel = Semel::start_on(on, &["sqlshell"]).await;
    let insert = json!({ "sql": "INSERT INTO scratch (id, value) VALUES (1, 'one')" });
    // Servers let nobody touch the engine's tables, nor run two statements at once, by an error like any other.
    let own = match on {
        On::Sqlite => ["PRAGMA journal_mode = DELETE", "SELECT * FROM semel_queue", "SELECT 1; COMMIT"],
        On::Postgres => ["SET ROLE postgres", "LISTEN semel", "DO 'BEGIN COMMIT; END'"],
        On::Mariadb => ["SET autocommit = 1", "CALL p()", "SELECT 1 /*! INTO OUTFILE '/tmp/x' */"],
    };
    for forbidden in own.into_iter().chain(["COMMIT", "ROLLBACK"]) {
        let script = json!({ "statements": [insert, { "sql": forbidden }, insert], "swallow": true });
        let ended = semel.call("sqlshell", &script.to_string()).await;
        assert!(ended.problem(502).starts_with("sql-forbidden: "), "{forbidden}");
        assert_eq!(semel.outcomes(&ended.id()).await, ["sql-forbidden"; 2], "{forbidden}");
        let reason = semel.message(&ended.id()).await["last_error"]["message"].take();
        assert!(!reason.as_str().expect("a reason").is_empty(), "{forbidden}");
        assert_eq!(semel.sql("SELECT COUNT(*) FROM scratch").await, json!([[0]]), "{forbidden}");
    }
}

/// The ends that `sqlshell` can make after it wrote: into a table, into the key-value store, and to a topic.
async fn sql_state_and_messages_are_kept_together_or_not_at_all(on: On) {
    let semel = Semel::start_on(on, &["sqlshell", "receipts"]).await;
    let script = |end: &str| {
        let writes = json!([
            { "sql": "INSERT INTO scratch VALUES (1, $1)", "params": [end] },
            { "state_set": ["end", end] },
            { "state_add": ["runs", 1] },
            { "publish": { "topic": "receipts", "body": end } },
        ]);
        json!({ "statements": writes, "end": end }).to_string()
    };
    for (end, outcome, status) in [("trap", "trapped", 502), ("retry", "failed", 502), ("reject", "refused", 422)] {
        let ended = semel.call("sqlshell", &script(end)).await;
        assert!(ended.problem(status).starts_with(outcome), "{end}: {}", ended.text());
    }
    assert_eq!(semel.call("sqlshell", &script("ok")).await.status, 200);
    let read = json!({ "statements": [{ "state_get": "end" }, { "state_get": "runs" }, { "sql": "SELECT value FROM scratch" }] });
    let kept = semel.call("sqlshell", &read.to_string()).await.ok()["results"].take();
    assert_eq!(kept[0], json!({ "value": "ok" }));
    assert_eq!(kept[1], json!({ "value": "1" }));
    assert_eq!(kept[2]["rows"], json!([["ok"]]));
    let published: i64 = semel.in_store("SELECT COUNT(*) FROM semel_messages WHERE function = 'receipts'").await;
    assert_eq!(published, 1);
}

/// The statement that is one too many fails the attempt even if the guest does not care.
async fn limits_of_the_manifest_fail_the_attempt(on: On) {
    let semel = Semel::start_on(on, &[]).await;
    let tight = built("sqlshell").with(r#"timeout = "5s""#, "timeout = \"5s\"\nstatements = 3\nrows = 2");
    semel.deploy(tight.with("max_attempts = 2", "max_attempts = 1")).await;
    let call = async |sql: &[&str]| {
        let statements: Vec<_> = sql.iter().map(|sql| json!({ "sql": sql })).collect();
        semel.call("sqlshell", &json!({ "statements": statements, "swallow": true }).to_string()).await
    };
    assert_eq!(call(&["SELECT 1 UNION SELECT 2", "SELECT 1", "SELECT 1"]).await.status, 200);
    let reason = call(&["INSERT INTO scratch (id) VALUES (1)", "SELECT 1", "SELECT 1", "SELECT 1"]).await.problem(502);
    assert!(reason.contains("statements"), "{reason}");
    let reason = call(&["INSERT INTO scratch (id) VALUES (1)", "VALUES (1), (2), (3)"]).await.problem(502);
    assert!(reason.contains("rows"), "{reason}");
    assert_eq!(semel.sql("SELECT COUNT(*) FROM scratch").await, json!([[0]]));
}

async fn what_a_run_said_and_used_is_in_its_trace(on: On) {
    let semel = Semel::start_on(on, &["misbehave"]).await;
    let id = semel.call("misbehave", &order("log")).await.id();
    let attempt = semel.trace(&id).await["attempts"][0].take();
    let logs = attempt["logs"].as_array().expect("lines");
    let levels: Vec<&str> = logs.iter().filter_map(|line| line["level"].as_str()).collect();
    assert_eq!(levels, ["debug", "info", "warn", "error"]);
    assert_eq!(logs[0]["message"], "asked to log");
    assert_eq!(logs[0]["fields"], json!([["message", id], ["attempt", "1"]]));
    assert!(attempt["fuel"].as_u64().expect("fuel") > 0);
    let id = semel.call("misbehave", &order("write")).await.id();
    assert_eq!(semel.trace(&id).await["attempts"][0]["statements"], 1);
}

/// The fuel that `ok` and `log` use is measured first; shortly before what `log` needs, the fuel ends when lines were
/// logged already. They are kept, although the attempt is rolled back.
async fn fuel_ends_a_run_and_its_log_lines_are_kept(on: On) {
    let semel = Semel::start_on(on, &["misbehave"]).await;
    let used = async |what: &str| {
        let id = semel.call("misbehave", &order(what)).await.id();
        semel.trace(&id).await["attempts"][0]["fuel"].as_u64().expect("fuel")
    };
    let (ok, log) = (used("ok").await, used("log").await);
    let fuel = log - (log - ok) / 8;
    semel.deploy(built("misbehave").with("[limits]", &format!("[limits]\nfuel = {fuel}"))).await;
    assert_eq!(semel.call("misbehave", &order("ok")).await.status, 200, "enough for this one");
    let ended = semel.call("misbehave", &order("log")).await;
    assert!(ended.problem(502).starts_with("out-of-fuel: "));
    assert_eq!(semel.outcomes(&ended.id()).await, ["out-of-fuel"; 2]);
    for attempt in semel.trace(&ended.id()).await["attempts"].as_array().expect("attempts") {
        let lines = attempt["logs"].as_array().expect("lines").len();
        assert!(lines > 0, "{attempt}");
        assert!(attempt["fuel"].as_u64().expect("fuel") <= fuel, "{attempt}");
    }
    let ended = semel.call("misbehave", &order("loop")).await;
    assert!(ended.problem(502).starts_with("out-of-fuel: "), "fuel ends before the timeout does");
}

/// Money moves once, and the receipt of it comes once; its ids can be worked out beforehand.
async fn a_transfer_and_its_receipt_are_one(on: On) {
    let semel = Semel::start_on(on, &["transfer", "receipts"]).await;
    let pay = |amount: i64| json!({ "from": "alice", "to": "bob", "amount": amount }).to_string();
    let paid = semel.post("/transfer", pay(30)).key("payment-1").wait(30).send().await;
    assert_eq!(paid.ok(), json!({ "id": paid.id(), "balances": { "alice": 70, "bob": 130 } }));
    semel.post("/transfer", pay(30)).key("payment-1").wait(30).send().await.ok();
    let receipt = message_id(&published_event_id(&paid.id(), 0), "receipts");
    assert_eq!(semel.until_settled(&receipt).await["state"], "completed");
    let body = json!({ "transfer": paid.id(), "from": "alice", "to": "bob", "amount": 30 });
    let receipts = semel.sql("SELECT message_id, body FROM receipts").await;
    assert_eq!(receipts[0][0], receipt);
    assert_eq!(serde_json::from_str::<Value>(receipts[0][1].as_str().expect("text")).expect("JSON"), body);
    assert_eq!(receipts.as_array().expect("rows").len(), 1);
    assert_eq!(semel.message(&receipt).await["group"], "alice");

    for (refused, why) in [
        (pay(71), "alice has 70"),
        (pay(-1), "positive"),
        (json!({ "from": "alice", "to": "nobody", "amount": 1 }).to_string(), "nobody"),
        ("{".to_owned(), "body"),
    ] {
        let ended = semel.call("transfer", &refused).await;
        assert!(ended.problem(422).contains(why), "{}", ended.text());
        assert_eq!(semel.outcomes(&ended.id()).await, ["refused"], "there is no point in a second attempt");
    }
    let accounts = semel.sql("SELECT id, balance FROM accounts ORDER BY id").await;
    assert_eq!(accounts, json!([["alice", 70], ["bob", 130]]));
    assert_eq!(semel.count("receipts", "completed").await, 1);
    assert_eq!(semel.sql("SELECT COUNT(*) FROM transfers").await, json!([[1]]));
}

/// What nobody subscribes to and what is not granted cannot be published, and a guest that goes on is told why.
async fn only_granted_topics_with_a_subscriber_can_be_published_to(on: On) {
    let semel = Semel::start_on(on, &["sqlshell"]).await;
    let publish = |topic: &str| json!({ "publish": { "topic": topic, "body": "" } });
    let script = json!({ "statements": [publish("receipts"), publish("secrets")], "swallow": true });
    let results = semel.call("sqlshell", &script.to_string()).await.ok()["results"].take();
    assert_eq!(results[0]["error"]["kind"], "unknown-topic");
    assert_eq!(results[1]["error"]["kind"], "forbidden");
}

/// A page is viewed by many at once for the first time: the savepoint of `pageview` and the queue make it one row.
async fn page_views_are_counted_each_once(on: On) {
    let semel = Semel::start_on(on, &["pageview"]).await;
    let views = join_all((0..10).map(|_| semel.post("/view/home", "").wait(30).send())).await;
    // MariaDB ends one of two that were refused the same new row at once and then wait for each other to change it: that view
    // is lost, as the contract has it, and none is counted twice.
    let counted = views.iter().filter(|view| view.status == 200).count();
    for view in views {
        let lost = on == On::Mariadb && view.text().contains("doomed");
        assert!(view.status == 200 || lost, "{}", view.text());
    }
    assert_eq!(semel.sql("SELECT page, views FROM pageviews").await, json!([["home", counted]]));
}
