//! Accepting messages over HTTP: what a 202 promises, what waiting gets, and what is refused without leaving a row.

use std::time::Duration;

use futures_util::future::join_all;
use reqwest::Method;
use semel::clock::Timestamp;
use serde_json::{Value, json};

use crate::harness::{On, Semel, built, on_every_store, until};

on_every_store!(
    a_202_says_which_message_it_is_and_where,
    what_was_answered_with_202_survives_a_kill_and_is_done_once,
    who_waits_gets_the_functions_own_answer,
    who_does_not_wait_long_enough_gets_a_202,
    a_body_is_kept_byte_for_byte,
    path_and_query_become_headers_that_a_sender_cannot_forge,
    the_same_key_and_request_is_one_message,
    a_key_is_forgotten_after_the_window_of_the_manifest,
    twenty_requests_at_once_with_one_key_are_one_message,
    what_is_malformed_is_refused_and_leaves_no_row,
    a_body_over_the_limit_is_refused_and_leaves_no_row,
    a_refusal_reaches_who_is_still_sending,
    a_delayed_message_does_not_start_before_its_time,
    what_is_urgent_goes_first_and_one_at_a_time
);

const MOST: usize = 1 << 20;

async fn a_202_says_which_message_it_is_and_where(on: On) {
    let semel = Semel::start_on(on, &["counter"]).await;
    let answer = semel.post("/fn/counter", "visits").send().await;
    assert_eq!(answer.status, 202);
    let id = answer.id();
    assert_eq!(answer.json(), json!({ "id": id, "state": "available", "duplicate": false }));
    assert_eq!(answer.header("location"), format!("/v1/messages/{id}"));
    semel.until_settled(&id).await;
    let message = semel.get(answer.header("location")).await.ok();
    assert_eq!(message["state"], "completed");
    let response =
        json!({ "content_type": "application/json", "headers": [], "body": r#"{"counter":"visits","count":1}"# });
    assert_eq!(message["response"], response);
}

/// Many senders at once; the host is killed as soon as the last of them has its 202, and again before anything was
/// due for a message that waits.
async fn what_was_answered_with_202_survives_a_kill_and_is_done_once(on: On) {
    let mut semel = Semel::start_on(on, &["counter"]).await;
    let later = semel.post("/fn/counter", "later").header("semel-delay", "1s").send().await.id();
    let sent = join_all((0..30).map(|_| semel.send("counter", "visits"))).await;
    semel.kill().await;
    for id in sent.iter().chain([&later]) {
        let found: i64 = semel.in_store(&format!("SELECT COUNT(*) FROM semel_messages WHERE id = '{id}'")).await;
        assert_eq!(found, 1, "{id} was accepted and is gone");
    }
    semel.restart().await;
    for id in sent.iter().chain([&later]) {
        assert_eq!(semel.until_settled(id).await["state"], "completed");
    }
    assert_eq!(semel.sql("SELECT id, n FROM counters ORDER BY id").await, json!([["later", 1], ["visits", 30]]));
}

async fn who_waits_gets_the_functions_own_answer(on: On) {
    let semel = Semel::start_on(on, &["counter", "misbehave"]).await;
    let answer = semel.post("/fn/counter", "visits").wait(30).send().await;
    assert_eq!(answer.ok(), json!({ "counter": "visits", "count": 1 }));
    assert_eq!(answer.header("content-type"), "application/json");
    assert_eq!(answer.header("preference-applied"), "wait");
    assert_eq!(semel.state(answer.header("semel-message-id")).await, "completed");
    let empty = semel.post("/fn/misbehave", r#"{"do": "ok"}"#).wait(30).send().await;
    assert_eq!((empty.status, empty.body.len()), (200, 0), "a function that answers nothing");
}

async fn who_does_not_wait_long_enough_gets_a_202(on: On) {
    let semel = Semel::start_on(on, &["counter"]).await;
    let patient = built("misbehave").with(r#"timeout = "1s""#, "timeout = \"20s\"\nlease = \"30s\"");
    semel.deploy(patient).await;
    let answer = semel.post("/fn/misbehave", r#"{"do": "sleep-loop", "millis": 2500}"#).wait(1).send().await;
    assert_eq!(answer.status, 202);
    assert_ne!(answer.json()["state"], "completed");
    assert_eq!(semel.until_settled(&answer.id()).await["state"], "completed");
    let at_once = semel.post("/fn/counter", "visits").wait(0).header("semel-delay", "1h").send().await;
    assert_eq!((at_once.status, &at_once.json()["state"]), (202, &json!("available")));
}

/// Text goes through a guest that keeps it, other bytes are looked at in the database.
async fn a_body_is_kept_byte_for_byte(on: On) {
    let semel = Semel::start_on(on, &["receipts"]).await;
    let text = "\u{feff}line\r\nline\n\ttab, ünïcode 🦀 \n\n";
    let answer_to_text =
        semel.post("/fn/receipts", text).header("content-type", "text/x-odd; charset=utf-8").wait(30).send().await;
    assert_eq!(answer_to_text.status, 200, "{}", answer_to_text.text());
    let content_type: String = semel.in_store("SELECT content_type FROM semel_messages").await;
    assert_eq!(content_type, "text/x-odd; charset=utf-8");

    let bytes: Vec<u8> = (0..=255).cycle().take(MOST).collect();
    let answer = semel.post("/fn/receipts", bytes.clone()).send().await;
    assert_eq!(answer.status, 202, "{}", answer.text());
    let kept: Vec<u8> = semel.in_store(&format!("SELECT body FROM semel_messages WHERE id = '{}'", answer.id())).await;
    assert!(kept == bytes, "{} bytes were kept of {}", kept.len(), bytes.len());
    let empty = semel.post("/fn/receipts", "").wait(30).send().await;
    assert_eq!(empty.status, 200, "an empty body is a body");
    let kept = format!("SELECT body FROM receipts WHERE message_id = '{}'", answer_to_text.id());
    assert_eq!(semel.sql(&kept).await, json!([[text]]));
}

async fn path_and_query_become_headers_that_a_sender_cannot_forge(on: On) {
    let semel = Semel::start_on(on, &["counter"]).await;
    let path = "/count/a%2Fb%20c%C3%A4%25?x=1&y=a+b%26&flag&x=2";
    let answer = semel.request(Method::GET, path).wait(30);
    let answer =
        answer.header("x-own", "kept").header("semel-path-counter", "forged").header("authorization", "Bearer secret");
    let answer = answer.header("semel-query-x", "forged").send().await;
    assert_eq!(answer.ok(), json!({ "counter": "a/b cä%", "count": 1 }));
    let headers: String = semel.in_store("SELECT headers FROM semel_messages").await;
    let headers: Vec<(String, String)> = serde_json::from_str(&headers).expect("a list of headers");
    let value = |name: &str| headers.iter().filter(|(n, _)| n == name).map(|(_, v)| v.as_str()).collect::<Vec<_>>();
    assert_eq!(value("semel-path-counter"), ["a/b cä%"]);
    assert_eq!(value("semel-query-x"), ["1", "2"]);
    assert_eq!(value("semel-query-y"), ["a b&"]);
    assert_eq!(value("semel-query-flag"), [""]);
    assert_eq!(value("x-own"), ["kept"]);
    assert!(!headers.iter().any(|(name, value)| name == "authorization" || value.contains("secret")), "{headers:?}");
    let posted = semel.post("/count/visits", "").wait(30).send().await;
    assert_eq!(posted.ok()["count"], 1);
}

async fn the_same_key_and_request_is_one_message(on: On) {
    let semel = Semel::start_on(on, &["counter", "misbehave"]).await;
    let first = semel.post("/fn/counter", "visits").key("order-1").send().await;
    assert_eq!(first.json()["duplicate"], false);
    semel.until_settled(&first.id()).await;
    let again = semel.post("/fn/counter", "visits").key("order-1").send().await;
    assert_eq!(again.status, 202);
    assert_eq!(again.json(), json!({ "id": first.id(), "state": "completed", "duplicate": true }));
    let waited = semel.post("/fn/counter", "visits").key("order-1").wait(30).send().await;
    assert_eq!((waited.id(), waited.ok()), (first.id(), json!({ "counter": "visits", "count": 1 })));

    let reused = [
        semel.post("/fn/counter", "visits\n").key("order-1"),
        semel.post("/fn/counter", "visits").header("content-type", "text/plain").key("order-1"),
        semel.post("/fn/counter?x", "visits").key("order-1"),
        semel.post("/count/visits", "visits").key("order-1"),
    ];
    for request in reused {
        let reason = request.send().await.problem(422);
        assert!(reason.contains("Idempotency-Key"), "{reason}");
    }
    let elsewhere = semel.post("/fn/misbehave", r#"{"do": "ok"}"#).key("order-1").send().await;
    assert_eq!((elsewhere.status, &elsewhere.json()["duplicate"]), (202, &json!(false)), "a key belongs to a function");
    assert_eq!(semel.in_store::<i64>("SELECT COUNT(*) FROM semel_messages WHERE function = 'counter'").await, 1);
    assert_eq!(semel.sql("SELECT n FROM counters").await, json!([[1]]));
}

async fn a_key_is_forgotten_after_the_window_of_the_manifest(on: On) {
    let semel = Semel::start_on(on, &[]).await;
    semel.deploy(built("counter").with("[limits]", "[idempotency]\nwindow = \"1s\"\n\n[limits]")).await;
    let send = async || semel.post("/fn/counter", "visits").key("order-1").send().await;
    let first = send().await.id();
    let second = until("the end of the window", async || {
        let answer = send().await;
        if answer.json()["duplicate"] == true {
            assert_eq!(answer.id(), first);
            return None;
        }
        Some(answer.id())
    });
    assert_ne!(second.await, first);
}

async fn twenty_requests_at_once_with_one_key_are_one_message(on: On) {
    let semel = Semel::start_on(on, &["counter"]).await;
    let longest = "k".repeat(255);
    let answers = join_all((0..20).map(|_| semel.post("/fn/counter", "visits").key(&longest).send())).await;
    let ids: Vec<String> = answers.iter().map(|answer| answer.id()).collect();
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    let new = answers.iter().filter(|answer| answer.json()["duplicate"] == false).count();
    assert_eq!(new, 1);
    semel.until_settled(&ids[0]).await;
    assert_eq!(semel.in_store::<i64>("SELECT COUNT(*) FROM semel_messages").await, 1);
    assert_eq!(semel.sql("SELECT n FROM counters").await, json!([[1]]));
}

async fn what_is_malformed_is_refused_and_leaves_no_row(on: On) {
    let semel = Semel::start_on(on, &["counter"]).await;
    let long = "k".repeat(256);
    for (name, value) in [
        ("idempotency-key", &b""[..]),
        ("idempotency-key", b"two words"),
        ("idempotency-key", long.as_bytes()),
        ("idempotency-key", "schlüssel".as_bytes()),
        ("semel-delay", b""),
        ("semel-delay", b"5"),
        ("semel-delay", b"soon"),
        ("semel-delay", b"-1s"),
        ("semel-delay", b"99999999999999999999h"),
        ("semel-priority", b"high"),
        ("semel-priority", b"1.5"),
        ("semel-priority", b"99999999999"),
        ("semel-group", b""),
        ("prefer", b"wait=soon"),
        ("prefer", b"wait=-1"),
        ("prefer", b"respond-async, wait="),
    ] {
        let refused = semel.post("/fn/counter", "visits").header(name, value).send().await;
        let reason = refused.problem(400).to_lowercase();
        assert!(reason.contains(name), "{name}: {reason}");
    }
    let twice = semel.post("/fn/counter", "visits").key("one").key("two").send().await;
    assert!(twice.problem(400).contains("more than once"));

    for (method, path, status) in [
        (Method::POST, "/fn/nobody", 404),
        (Method::POST, "/fn/Counter", 404),
        (Method::POST, "/fn/%FF", 400),
        (Method::GET, "/v1/messages/%FF", 400),
        (Method::GET, "/v1/functions/%FF", 400),
        (Method::POST, "/fn/counter/more", 404),
        (Method::POST, "/fn/", 404),
        (Method::POST, "/count", 404),
        (Method::POST, "/", 404),
        (Method::POST, "/v1/nothing", 404),
        (Method::GET, "/fn/counter", 405),
        (Method::DELETE, "/count/visits", 405),
        (Method::DELETE, "/v1/messages", 405),
        (Method::POST, "/readyz", 405),
    ] {
        semel.request(method, path).send().await.problem(status);
    }
    let broken_off = b"POST /fn/counter HTTP/1.1\r\nhost: test\r\ncontent-length: 10\r\n\r\nvisit";
    let said = semel.raw(broken_off).await;
    assert!(said.is_empty() || said.starts_with("HTTP/1.1 400 "), "{said}");
    assert_eq!(semel.in_store::<i64>("SELECT COUNT(*) FROM semel_messages").await, 0);
    assert_eq!(semel.in_store::<i64>("SELECT COUNT(*) FROM semel_keys").await, 0);
}

/// Once with the length said beforehand, where not a byte of it needs to be sent, and once without.
async fn a_body_over_the_limit_is_refused_and_leaves_no_row(on: On) {
    let semel = Semel::start_on(on, &["counter"]).await;
    let head = "POST /fn/counter HTTP/1.1\r\nhost: test\r\nconnection: close\r\n";
    let said = semel.raw(format!("{head}content-length: {}\r\n\r\n", MOST + 1).as_bytes()).await;
    assert!(said.starts_with("HTTP/1.1 413 "), "{said}");
    let mut chunked = format!("{head}transfer-encoding: chunked\r\n\r\n{:x}\r\n", MOST + 1).into_bytes();
    chunked.resize(chunked.len() + MOST + 1, b'x');
    let said = semel.raw(&chunked).await;
    assert!(said.starts_with("HTTP/1.1 413 ") && said.contains("application/problem+json"), "{said}");
    assert_eq!(semel.in_store::<i64>("SELECT COUNT(*) FROM semel_messages").await, 0);
}

/// A refusal comes early, while the sender is busy sending. It is an answer all the same, and no torn connection.
async fn a_refusal_reaches_who_is_still_sending(on: On) {
    let semel = Semel::start_on(on, &["counter"]).await;
    for _ in 0..5 {
        semel.post("/fn/counter", vec![b'x'; 8 << 20]).send().await.problem(413);
        semel.post("/fn/nobody", vec![b'x'; 8 << 20]).send().await.problem(404);
        semel.post("/fn/counter", vec![b'x'; MOST]).key("two words").send().await.problem(400);
    }
    let id = semel.post("/fn/counter", "visits").wait(30).send().await.id();
    assert_eq!(semel.state(&id).await, "completed");
    assert_eq!(semel.in_store::<i64>("SELECT COUNT(*) FROM semel_messages").await, 1);
}

async fn a_delayed_message_does_not_start_before_its_time(on: On) {
    let semel = Semel::start_on(on, &["counter"]).await;
    let answer = semel.post("/fn/counter", "visits").header("semel-delay", "700ms").send().await;
    let message = semel.until_settled(&answer.id()).await;
    assert_eq!(message["state"], "completed");
    let attempt = semel.trace(&answer.id()).await["attempts"][0].take();
    let waited = time(&attempt["started_at"]).since(time(&message["created_at"]));
    assert!(waited >= Duration::from_millis(700), "started after {waited:?}");
    assert_eq!(time(&message["available_at"]).since(time(&message["created_at"])), Duration::from_millis(700));
}

/// One at a time: while the first one runs, others arrive, and wait in the order of their urgency. What is dawdled
/// over here also shows that the concurrency of a manifest is kept.
async fn what_is_urgent_goes_first_and_one_at_a_time(on: On) {
    let semel = Semel::start_on(on, &[]).await;
    let serial = built("misbehave").with("[retry]", "[flow]\nconcurrency = 1\n\n[retry]");
    semel.deploy(serial.with(r#"timeout = "1s""#, "timeout = \"20s\"\nlease = \"30s\"")).await;
    let first = semel.send("misbehave", r#"{"do": "sleep-loop", "millis": 2500}"#).await;
    semel.until_started(&first, 1).await;
    let mut ids = vec![first];
    for priority in ["0", "-5", "9", "0"] {
        let request = semel.post("/fn/misbehave", r#"{"do": "write"}"#).header("semel-priority", priority);
        ids.push(request.send().await.id());
    }
    let mut runs = Vec::new();
    for (name, id) in ["first", "normal", "low", "urgent", "normal, later"].iter().zip(&ids) {
        semel.until_settled(id).await;
        let attempt = semel.trace(id).await["attempts"][0].take();
        runs.push((time(&attempt["started_at"]), time(&attempt["ended_at"]), *name));
    }
    runs.sort();
    let order: Vec<&str> = runs.iter().map(|(_, _, name)| *name).collect();
    assert_eq!(order, ["first", "urgent", "normal", "normal, later", "low"]);
    assert!(runs.is_sorted_by(|(_, ended, _), (started, _, _)| ended <= started), "two ran at once: {runs:?}");
}

fn time(rfc3339: &Value) -> Timestamp {
    serde_json::from_value(rfc3339.clone()).expect("a time")
}
