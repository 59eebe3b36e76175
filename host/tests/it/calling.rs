//! Functions that call other servers while they run: what the servers see, what the ledger says, and what the guest is
//! told. The components are a few lines of WebAssembly text each; the servers are real and count.

use std::time::Duration;

use serde_json::{Value, json};
use sqlx::ConnectOptions as _;
use sqlx::sqlite::SqliteConnectOptions;

use crate::harness::{Function, On, Semel, Start, on_every_store, until};
use crate::outside::{Server, Then};
use crate::wasi;

on_every_store!(
    a_call_is_in_the_ledger_and_has_one_key_on_every_attempt,
    without_a_grant_nobody_is_called,
    a_call_that_outlives_its_run_is_unknown,
    a_defect_of_the_host_leaves_no_call_intended,
    a_request_that_breaks_off_was_never_sent,
    people_see_calls_and_how_often_they_happened,
    what_may_have_happened_is_redriven_only_with_a_yes,
    many_are_redriven_but_for_those_that_called,
    a_run_that_is_taken_back_waits_no_longer,
);

const IMPORTS: &str = r#"
    (import "wasi:http/types@0.2.4" "[constructor]fields" (func $fields (result i32)))
    (import "wasi:http/types@0.2.4" "[constructor]outgoing-request" (func $request (param i32) (result i32)))
    (import "wasi:http/types@0.2.4" "[method]outgoing-request.set-method"
        (func $set_method (param i32 i32 i32 i32) (result i32)))
    (import "wasi:http/types@0.2.4" "[method]outgoing-request.set-scheme"
        (func $set_scheme (param i32 i32 i32 i32 i32) (result i32)))
    (import "wasi:http/types@0.2.4" "[method]outgoing-request.set-authority"
        (func $set_authority (param i32 i32 i32 i32) (result i32)))
    (import "wasi:http/types@0.2.4" "[method]outgoing-request.set-path-with-query"
        (func $set_path (param i32 i32 i32 i32) (result i32)))
    (import "wasi:http/types@0.2.4" "[method]outgoing-request.body" (func $body (param i32 i32)))
    (import "wasi:http/types@0.2.4" "[method]future-incoming-response.subscribe" (func $ready (param i32) (result i32)))
    (import "wasi:http/types@0.2.4" "[method]future-incoming-response.get" (func $get (param i32 i32)))
    (import "wasi:http/types@0.2.4" "[resource-drop]future-incoming-response" (func $let_go (param i32)))
    (import "wasi:http/types@0.2.4" "[method]incoming-response.status" (func $status (param i32) (result i32)))
    (import "wasi:http/outgoing-handler@0.2.4" "handle" (func $handle (param i32 i32 i32 i32)))
    (import "semel:function/state@0.1.0" "add" (func $add (param i32 i32 i64 i32)))
    (import "semel:function/log@0.1.0" "write" (func $log (param i32 i32 i32 i32 i32)))
"#;

/// `$post` hands a request over and leaves its future; `$call` waits for the answer and shows the status, or else the
/// number of the error beside 1000. They go to `$authority`. `$count` uses the database.
fn steps(authority: &str) -> String {
    let length = authority.len();
    format!(
        r#"(data (i32.const 3072) "{authority}") (data (i32.const 3328) "/mail?token=secret")
        (global $authority (mut i32) (i32.const 3072)) (global $length (mut i32) (i32.const {length}))
        (func $count (call $add (i32.const 3072) (i32.const 1) (i64.const 1) (i32.const 4096)))
        (func $new (result i32) (local i32)
            (local.set 0 (call $request (call $fields)))
            (drop (call $set_method (local.get 0) (i32.const 2) (i32.const 0) (i32.const 0)))
            (drop (call $set_scheme (local.get 0) (i32.const 1) (i32.const 0) (i32.const 0) (i32.const 0)))
            (drop (call $set_authority (local.get 0) (i32.const 1) (global.get $authority) (global.get $length)))
            (drop (call $set_path (local.get 0) (i32.const 1) (i32.const 3328) (i32.const 18)))
            (local.get 0))
        (func $post (result i32)
            (call $handle (call $new) (i32.const 0) (i32.const 0) (i32.const 4096))
            (if (i32.load8_u (i32.const 4096)) (then unreachable))
            (i32.load (i32.const 4104)))
        (func $call (local i32)
            (local.set 0 (call $post))
            (call $block (call $ready (local.get 0)))
            (call $get (local.get 0) (i32.const 4096))
            (if (i32.load8_u (i32.const 4112))
                (then (call $show32 (i32.add (i32.const 1000) (i32.load8_u (i32.const 4120)))))
                (else (call $show32 (call $status (i32.load (i32.const 4120)))))))"#
    )
}

/// Runs `body`, with `[grants] http` as given.
pub(crate) fn function(name: &str, authority: &str, granted: &str, body: &str) -> Function {
    let grants = format!("[grants]\nhttp = [{granted}]");
    wasi::function(name, IMPORTS, &steps(authority), &grants, body)
}

/// Calls a server on this machine, by a name that is granted.
pub(crate) fn local(name: &str, port: u16, body: &str) -> Function {
    function(name, &format!("localhost:{port}"), &format!("\"http://localhost:{port}\""), body)
}

/// The ledger by its HTTP interface, a row for each attempt: state, key, attempt, status, URL.
async fn ledger(semel: &Semel) -> Vec<(String, String, i64, Option<i64>, String)> {
    let page = semel.get("/v1/ledger?limit=1000").await.ok();
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let mut rows = Vec::new();
    for call in page["calls"].as_array().expect("calls") {
        for made in call["attempts"].as_array().expect("attempts") {
            let row = (
                text(&made["state"]),
                text(&call["key"]),
                made["attempt"].as_i64().expect("a number"),
                made["status"].as_i64(),
                text(&call["url"]),
            );
            rows.push((text(&made["intended_at"]), row));
        }
    }
    rows.sort();
    rows.into_iter().map(|(_, row)| row).collect()
}

/// Numbers that the first attempt has shown.
async fn shown(semel: &Semel, id: &str) -> Vec<u64> {
    let trace = semel.trace(id).await;
    let attempt = &trace["attempts"][0];
    let lines = wasi::lines(attempt);
    wasi::numbers(&lines.first().unwrap_or_else(|| panic!("{attempt:#}")).1)
}

pub(crate) const OK: Then = Then::Say(b"HTTP/1.1 201 Created\r\ncontent-length: 0\r\n\r\n");

/// Both attempts call; the server sees one key per call, and the ledger says so.
async fn a_call_is_in_the_ledger_and_has_one_key_on_every_attempt(on: On) {
    let (semel, server) = (Semel::start_on(on, &[]).await, Server::start(OK).await);
    let (authority, granted) = (server.address.to_string(), format!("\"http://{}\"", server.address));
    let body = "(call $call) (call $call) (call $line) unreachable";
    let deployed = semel.deploy(function("mailer", &authority, &granted, body)).await;
    assert_eq!(deployed["label"], "external", "{deployed:#}");
    let id = semel.send("mailer", "").await;
    semel.until_settled(&id).await;
    assert_eq!(shown(&semel, &id).await, [201, 201]);
    let calls = ledger(&semel).await;
    let key = |request: &String| {
        let found = request.lines().find_map(|line| line.strip_prefix("idempotency-key: "));
        found.expect("a key").to_owned()
    };
    let seen: Vec<String> = server.requests.lock().expect("a lock").iter().map(key).collect();
    assert_eq!((seen.len(), calls.len()), (4, 4), "two calls, two attempts");
    assert_eq!((&seen[..2], seen[0] != seen[1]), (&seen[2..], true), "a key for each call, on both attempts the same");
    for (call, key) in calls.iter().zip(seen) {
        assert_eq!((call.0.as_str(), &call.1, call.3), ("done", &key, Some(201)));
        assert_eq!(call.4, format!("http://{authority}/mail"), "without the query");
    }
    assert_eq!(calls.iter().map(|call| call.2).collect::<Vec<_>>(), [1, 1, 2, 2]);
}

/// Without a grant the import is a stub that refuses, which counts for nothing, and nobody is called.
async fn without_a_grant_nobody_is_called(on: On) {
    let (semel, server) = (Semel::start_on(on, &[]).await, Server::start(OK).await);
    let body = "(call $call) (call $line) (i32.const 0)";
    let deployed = semel.deploy(function("stub", &server.address.to_string(), "", body)).await;
    assert_eq!(deployed["label"], "transactional", "{deployed:#}");
    let done = semel.call("stub", "").await;
    assert_eq!(shown(&semel, &done.id()).await, [1015], "HTTP-request-denied");
    // Granted something, and calling something else: refused, and in the ledger.
    for (name, authority) in [
        ("other", server.address.to_string()),
        ("decimal", format!("2130706433:{}", server.port())),
        ("mapped", format!("[::ffff:127.0.0.1]:{}", server.port())),
        ("metadata", "169.254.169.254".to_owned()),
    ] {
        semel.deploy(function(name, &authority, "\"https://api.example.com\"", body)).await;
        let done = semel.call(name, "").await;
        assert_eq!(shown(&semel, &done.id()).await, [1015], "{name}");
        let last = ledger(&semel).await.pop().expect("a call");
        assert_eq!((last.0.as_str(), last.3), ("failed", None), "{name}");
    }
    assert_eq!(server.connections(), 0);
}

/// What becomes of a call that the run does not live to see: nobody knows, and the ledger says that.
async fn a_call_that_outlives_its_run_is_unknown(on: On) {
    let (mut semel, server) = (Semel::start_on(on, &[]).await, Server::start(Then::Hold(b"")).await);
    let (authority, granted) = (server.address.to_string(), format!("\"http://{}\"", server.address));
    for (name, body) in [
        ("waits", "(call $call) (i32.const 0)"),
        ("traps", "(drop (call $post)) (call $block (call $after (i64.const 200000000))) unreachable"),
        ("leaves", "(drop (call $post)) (call $block (call $after (i64.const 200000000))) (i32.const 0)"),
        (
            "lets-go",
            "(local i32) (local.set 15 (call $post)) (call $block (call $after (i64.const 200000000)))
             (call $let_go (local.get 15)) (i32.const 0)",
        ),
    ] {
        semel.deploy(function(name, &authority, &granted, body).with("max_attempts = 2", "max_attempts = 1")).await;
        let before = server.connections();
        let id = semel.send(name, "").await;
        semel.until_settled(&id).await;
        assert_eq!(server.connections(), before + 1, "{name}: the request was sent");
        let last = ledger(&semel).await.pop().expect("a call");
        assert_eq!(last.0, "unknown", "{name}");
    }
    // And when the host itself does not live to see it. The next one starts no second attempt in this test.
    let slow = function("dies", &authority, &granted, "(call $call) (i32.const 0)");
    let slow = slow.with("timeout = \"500ms\"", "timeout = \"2s\"\nlease = \"3500ms\"");
    semel.deploy(slow.with("max_attempts = 2", "max_attempts = 1")).await;
    let before = server.connections();
    let id = semel.send("dies", "").await;
    until("the request arrives", async || (server.connections() > before).then_some(())).await;
    assert_eq!(ledger(&semel).await.pop().expect("a call").0, "intended", "before the first byte");
    semel.kill().await;
    semel.restart().await;
    assert_eq!(semel.until_settled(&id).await["last_error"]["kind"], "host-lost");
    let last = ledger(&semel).await.pop().expect("a call");
    assert_eq!(last.0, "unknown", "after recovery");
}

/// The host goes on, so no recovery of a dead one comes to it.
async fn a_defect_of_the_host_leaves_no_call_intended(on: On) {
    let variables = &[("SEMEL_PANIC", "half a line")][..];
    let mut semel = Semel::start_as(Start { on, variables, ..Start::default() }, &[]).await;
    semel.expect_panics();
    let server = Server::start(Then::Hold(b"")).await;
    let body = "(drop (call $post)) (call $block (call $after (i64.const 200000000)))
        (call $log (i32.const 2) (i32.const 1024) (i32.const 11) (i32.const 0) (i32.const 0)) (i32.const 0)";
    let defect = patient(local("defect", server.port(), body)); // The call itself does not end before the run.
    semel.deploy(defect.with("max_attempts = 2", "max_attempts = 1")).await;
    let id = semel.send("defect", "").await;
    assert_eq!(semel.until_settled(&id).await["last_error"]["kind"], "host-failed");
    let last = ledger(&semel).await.pop().expect("a call");
    assert_eq!((last.0.as_str(), server.connections()), ("unknown", 1));
    let call = &semel.trace(&id).await["calls"][0]["attempts"][0];
    assert!(call["detail"].to_string().contains("defect"), "{call}");
}

/// SQLite's ledger is a file of its own, made with the first call.
#[tokio::test]
async fn a_call_that_was_sent_is_in_the_ledger_after_a_loss_of_power() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let fired = folder.path().join("fired");
    let armed = [("SEMEL_CRASH", "call.sent:power"), ("SEMEL_CRASH_FIRED", fired.to_str().expect("a path"))];
    let (mut semel, server) = (Semel::start_with(&armed, &[]).await, Server::start(Then::Hold(b"")).await);
    let mailer = local("mailer", server.port(), "(call $call) (i32.const 0)");
    semel.deploy(mailer.with("[limits]", "contract = \"begin-once\"\n[limits]")).await;
    let id = semel.send("mailer", "").await;
    let end = semel.ended().await;
    assert_eq!(std::fs::read_to_string(&fired).expect("it fired"), "call.sent\n", "{end}: {}", semel.log());
    let _unarmed = semel.serve(&[]).await;
    assert_eq!(semel.until_settled(&id).await["state"], "in-doubt");
    let states: Vec<String> = ledger(&semel).await.into_iter().map(|call| call.0).collect();
    assert_eq!((states, server.connections()), (vec!["unknown".to_owned()], 1));
}

/// A request whose body the guest does not end is not sent.
async fn a_request_that_breaks_off_was_never_sent(on: On) {
    let (semel, server) = (Semel::start_on(on, &[]).await, Server::start(OK).await);
    let (authority, granted) = (server.address.to_string(), format!("\"http://{}\"", server.address));
    let body = "(local i32)
        (local.set 15 (call $new)) (call $body (local.get 15) (i32.const 4096))
        (call $handle (local.get 15) (i32.const 0) (i32.const 0) (i32.const 4096))
        (call $block (call $after (i64.const 100000000))) (i32.const 0)";
    semel.deploy(function("halfway", &authority, &granted, body)).await;
    let done = semel.call("halfway", "").await;
    assert_eq!(done.status, 200, "{}", done.text());
    assert_eq!(server.connections(), 0);
}

/// Two attempts that were both answered, and one more after a person said so.
async fn people_see_calls_and_how_often_they_happened(on: On) {
    let (semel, server) = (Semel::start_on(on, &[]).await, Server::start(OK).await);
    let deployed = semel.deploy(local("mailer", server.port(), "(call $call) unreachable")).await;
    let warned = deployed["warnings"].to_string().contains("write lock");
    assert_eq!(warned, on == On::Sqlite, "{deployed:#}");
    let id = semel.send("mailer", "").await;
    semel.until_settled(&id).await;
    let url = format!("http://localhost:{}/mail", server.port());
    let trace = semel.trace(&id).await;
    let call = &trace["calls"][0];
    assert_eq!((&call["method"], &call["url"], &call["state"]), (&json!("POST"), &json!(url), &json!("done")));
    assert_eq!(call["bounds"], json!({ "least": 2, "most": 2, "text": "happened 2 times" }));
    for attempt in trace["attempts"].as_array().expect("attempts") {
        let made = &attempt["calls"][0];
        assert_eq!((&made["status"], &made["key"], &made["bounds"]), (&json!(201), &call["key"], &call["bounds"]));
    }
    let outside = trace["guarantees"].as_array().expect("guarantees").iter();
    let outside: Vec<_> = outside.filter(|row| row["effect"].to_string().contains("outside effect")).collect();
    assert_eq!(outside[0]["happens"], "1 or more");
    let page = semel.cli(&["ledger", "--function", "mailer", "--json"]).await.json();
    assert_eq!((&page["calls"][0], &page["next"]), (call, &Value::Null));
    let shown = semel.cli(&["ledger"]).await;
    for part in [&id, &url, call["key"].as_str().expect("a key"), "happened 2 times"] {
        assert!(shown.ok().contains(part), "{part} in {}", shown.stdout);
    }
    assert!(!semel.cli(&["ledger", "--unknown"]).await.ok().contains(&id), "both were answered");
    let told = semel.cli(&["trace", &id]).await;
    for part in ["label external", "happened 2 times", &format!("attempt 2 called POST {url}: done 201"), "1 or more"] {
        assert!(told.ok().contains(part), "{part} in {}", told.stdout);
    }
    let doctor = semel.cli(&["doctor", "--json"]).await;
    let facts = serde_json::from_str::<Value>(&doctor.stdout).expect("facts")["facts"].take();
    let fact = facts.as_array().expect("facts").iter().find(|fact| fact["name"] == "function mailer");
    assert_eq!(fact.is_some_and(|fact| fact["value"].to_string().contains("write lock")), on == On::Sqlite);
}

/// A trace is one document: of very many calls it shows the first, and where the others are.
#[tokio::test]
async fn a_trace_of_very_many_calls_has_an_end() {
    let (semel, server) = (Semel::start(&[]).await, Server::start(OK).await);
    semel.deploy(local("mailer", server.port(), "(call $call) (i32.const 0)")).await;
    let id = semel.call("mailer", "").await.id();
    assert_eq!(semel.trace(&id).await["more_calls"], false);
    let file = SqliteConnectOptions::new().filename(semel.folder().join("test.db.ledger"));
    let mut file = file.connect().await.expect("the ledger");
    let more = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 299)
        INSERT INTO semel_calls (message, function, fence, attempt, ordinal, method, url, key, state, intended_at)
        SELECT message, function, fence, attempt, i, method, url, key, state, intended_at FROM semel_calls, n";
    sqlx::raw_sql(more).execute(&mut file).await.expect("many more");
    let trace = semel.trace(&id).await;
    let calls = trace["calls"].as_array().expect("calls");
    assert_eq!((calls.len(), &calls[199]["ordinal"], &trace["more_calls"]), (200, &json!(199), &json!(true)));
    let told = semel.cli(&["trace", &id]).await;
    assert!(told.ok().contains(&format!("semel ledger --message {id}")), "{}", told.stdout);
    let all = semel.cli(&["ledger", "--message", &id, "--limit", "1000", "--json"]).await.json();
    assert_eq!(all["calls"].as_array().expect("calls").len(), 300);
}

async fn what_may_have_happened_is_redriven_only_with_a_yes(on: On) {
    let (semel, server) = (Semel::start_on(on, &[]).await, Server::start(OK).await);
    semel.deploy(local("mailer", server.port(), "(call $call) unreachable")).await;
    let id = semel.send("mailer", "").await;
    semel.until_settled(&id).await;
    let path = format!("/v1/messages/{id}/redrive");
    let refused = semel.post(&path, "").send().await.problem(409);
    let named = format!("POST http://localhost:{}/mail", server.port());
    assert!(refused.contains(&named) && refused.contains("happened 2 times"), "{refused}");
    semel.post(&path, r#"{"yes": false}"#).send().await.problem(409);
    semel.post(&path, r#"{"yes": "perhaps"}"#).send().await.problem(400);
    let done = semel.cli(&["redrive", &id]).await;
    assert_eq!((done.code, done.stderr.contains("--yes"), server.connections()), (1, true, 2), "{done:?}");
    assert_eq!(semel.cli(&["redrive", &id, "--yes"]).await.ok().trim(), "1 redriven");
    semel.until_settled(&id).await;
    assert_eq!(semel.trace(&id).await["calls"][0]["bounds"]["text"], "happened 4 times");
    // Who has called nobody, or certainly failed to, needs no yes.
    drop(server);
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address").port();
    semel.deploy(local("unlucky", nobody, "(call $call) unreachable")).await;
    let id = semel.send("unlucky", "").await;
    semel.until_settled(&id).await;
    assert_eq!(semel.trace(&id).await["calls"][0]["bounds"]["text"], "did not happen");
    semel.post(&format!("/v1/messages/{id}/redrive"), "").send().await.ok();
}

/// Each message says by its body whom to call: the server, or a port where nobody is.
async fn many_are_redriven_but_for_those_that_called(on: On) {
    let (semel, server) = (Semel::start_on(on, &[]).await, Server::start(OK).await);
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address").port();
    let granted = format!("\"http://localhost:{}\", \"http://localhost:{nobody}\"", server.port());
    semel.deploy(function("mailer", "", &granted, &format!("{TO_BODY} (call $call) unreachable"))).await;
    let mut ids = Vec::new();
    for port in [server.port(), nobody, server.port(), nobody] {
        let id = semel.send("mailer", &format!("localhost:{port}")).await;
        semel.until_settled(&id).await;
        ids.push(id);
    }
    let called = server.connections();
    semel.post("/v1/functions/mailer/pause", "").send().await.ok();
    let some = semel.cli(&["redrive", "--function", "mailer", "--limit", "1"]).await;
    assert_eq!((some.code, some.stdout.trim()), (1, "1 redriven"), "{some:?}");
    assert!(some.stderr.contains("1 left where they are"), "{some:?}");
    let filter = json!({ "function": "mailer", "state": "dead" });
    let rest = semel.post("/v1/redrive", filter.to_string()).send().await;
    assert_eq!(rest.ok(), json!({ "redriven": 1, "skipped": 2 }));
    let mut states = Vec::new();
    for id in &ids {
        states.push(semel.state(id).await);
    }
    assert_eq!(states, ["dead", "available", "dead", "available"]);
    assert_eq!(semel.cli(&["redrive", "--function", "mailer", "--yes"]).await.ok().trim(), "2 redriven");
    assert_eq!((semel.count("mailer", "available").await, server.connections()), (4, called), "it is paused");
}

/// Calls whom the message's body names.
pub(crate) const TO_BODY: &str = "(global.set $authority (local.get 13)) (global.set $length (local.get 14))";

/// What waits for an answer that never comes, for longer than this test does.
pub(crate) fn patient(function: Function) -> Function {
    function.with("timeout = \"500ms\"", "timeout = \"100s\"\nlease = \"102s\"")
}

/// A cancel ends the wait for an answer, and what became of the call is unknown.
async fn a_run_that_is_taken_back_waits_no_longer(on: On) {
    let (semel, server) = (Semel::start_on(on, &[]).await, Server::start(Then::Hold(b"")).await);
    semel.deploy(patient(local("waits", server.port(), "(call $call) (i32.const 0)"))).await;
    let id = semel.send("waits", "").await;
    until("the request", async || (server.connections() == 1).then_some(())).await;
    semel.cli(&["cancel", &id]).await.ok();
    until("the end of the run", async || (ledger(&semel).await.pop()?.0 == "unknown").then_some(())).await;
    assert_eq!(semel.outcomes(&id).await, ["cancelled"]);
}

/// The one write lock is taken when the database is first used, and then held.
#[tokio::test]
async fn who_calls_before_it_writes_keeps_nobody_waiting() {
    let (semel, server) = (Semel::start(&["counter"]).await, Server::start(Then::Hold(b"")).await);
    for (name, body) in
        [("early", "(call $call) (call $count) (i32.const 0)"), ("late", "(call $count) (call $call) (i32.const 0)")]
    {
        semel.deploy(patient(local(name, server.port(), body))).await;
    }
    let early = semel.send("early", "").await;
    until("the request", async || (server.connections() == 1).then_some(())).await;
    assert_eq!(semel.call("counter", "a").await.status, 200);
    assert_eq!(semel.state(&early).await, "running");
    let late = semel.send("late", "").await;
    until("the request", async || (server.connections() == 2).then_some(())).await;
    semel.post("/fn/counter", "b").give_up(Duration::from_secs(1)).await;
    semel.cli(&["cancel", &late]).await.ok();
    assert_eq!(semel.call("counter", "c").await.status, 200);
    assert_eq!(semel.state(&early).await, "running");
    semel.cli(&["cancel", &early]).await.ok();
}
