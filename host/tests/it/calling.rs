//! Functions that call other servers while they run: what the servers see, what the ledger says, and what the guest is
//! told. The components are a few lines of WebAssembly text each; the servers are real and count.

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions as _, Row as _};

use crate::harness::{Function, Semel, until};
use crate::outside::{Server, Then};
use crate::wasi;

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
"#;

/// `$post` hands a request over and leaves its future; `$call` waits for the answer and shows the status, or else the
/// number of the error beside 1000.
fn steps(authority: &str) -> String {
    let length = authority.len();
    format!(
        r#"(data (i32.const 3072) "{authority}") (data (i32.const 3328) "/mail?token=secret")
        (func $new (result i32) (local i32)
            (local.set 0 (call $request (call $fields)))
            (drop (call $set_method (local.get 0) (i32.const 2) (i32.const 0) (i32.const 0)))
            (drop (call $set_scheme (local.get 0) (i32.const 1) (i32.const 0) (i32.const 0) (i32.const 0)))
            (drop (call $set_authority (local.get 0) (i32.const 1) (i32.const 3072) (i32.const {length})))
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
fn function(name: &str, authority: &str, granted: &str, body: &str) -> Function {
    let grants = format!("[grants]\nhttp = [{granted}]");
    wasi::function(name, IMPORTS, &steps(authority), &grants, body)
}

/// The ledger, as another process reads it: state, key, attempt, status, URL.
async fn ledger(semel: &Semel) -> Vec<(String, String, i64, Option<i64>, String)> {
    let path = format!("{}.ledger", semel.database().trim_start_matches("sqlite:").trim_start_matches("//"));
    let mut file = SqliteConnectOptions::new().filename(path).read_only(true).connect().await.expect("a ledger");
    let rows = sqlx::query("SELECT state, key, attempt, status, url FROM semel_calls ORDER BY id").fetch_all(&mut file);
    let rows = rows.await.expect("calls");
    rows.iter().map(|row| (row.get(0), row.get(1), row.get(2), row.get(3), row.get(4))).collect()
}

/// Numbers that the first attempt has shown.
async fn shown(semel: &Semel, id: &str) -> Vec<u64> {
    let trace = semel.trace(id).await;
    let attempt = &trace["attempts"][0];
    let lines = wasi::lines(attempt);
    wasi::numbers(&lines.first().unwrap_or_else(|| panic!("{attempt:#}")).1)
}

const OK: Then = Then::Say(b"HTTP/1.1 201 Created\r\ncontent-length: 0\r\n\r\n");

/// Both attempts call; the server sees one key per call, and the ledger says so.
#[tokio::test]
async fn a_call_is_in_the_ledger_and_has_one_key_on_every_attempt() {
    let (semel, server) = (Semel::start(&[]).await, Server::start(OK).await);
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
#[tokio::test]
async fn without_a_grant_nobody_is_called() {
    let (semel, server) = (Semel::start(&[]).await, Server::start(OK).await);
    let body = "(call $call) (call $line) (i32.const 0)";
    let deployed = semel.deploy(function("stub", &server.address.to_string(), "", body)).await;
    assert_eq!(deployed["label"], "pinned", "{deployed:#}");
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
#[tokio::test]
async fn a_call_that_outlives_its_run_is_unknown() {
    let (mut semel, server) = (Semel::start(&[]).await, Server::start(Then::Hold(b"")).await);
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
    semel
        .deploy(slow.with("timeout = \"500ms\"", "timeout = \"8s\"").with("max_attempts = 2", "max_attempts = 1"))
        .await;
    let before = server.connections();
    semel.send("dies", "").await;
    until("the request arrives", async || (server.connections() > before).then_some(())).await;
    assert_eq!(ledger(&semel).await.pop().expect("a call").0, "intended", "before the first byte");
    semel.kill().await;
    semel.restart().await;
    let last = ledger(&semel).await.pop().expect("a call");
    assert_eq!(last.0, "unknown", "after recovery");
}

/// A request whose body the guest does not end is not sent.
#[tokio::test]
async fn a_request_that_breaks_off_was_never_sent() {
    let (semel, server) = (Semel::start(&[]).await, Server::start(OK).await);
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
