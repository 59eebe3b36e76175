//! The doors: who sends too much, too slowly or not at all gets an answer that says so, or an end, and never keeps the
//! others waiting. Most of it is nothing that an HTTP library would send.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use crate::harness::{Semel, built, until};

/// Only catches what hangs.
const LONG: Duration = Duration::from_secs(30);

/// A host with limits of its own.
async fn with_limits(limits: &str, functions: &[&str]) -> (Semel, tokio::process::Child) {
    let mut semel = Semel::start(functions).await;
    semel.stop().await;
    std::fs::write(semel.folder().join("semel.toml"), format!("[limits]\n{limits}\n")).expect("a file");
    let host = semel.serve(&[]).await;
    (semel, host)
}

async fn connect(semel: &Semel) -> TcpStream {
    TcpStream::connect(semel.address()).await.expect("a connection")
}

/// What the host says until it closes.
async fn rest(stream: &mut TcpStream) -> String {
    let mut said = Vec::new();
    let read = timeout(LONG, stream.read_to_end(&mut said)).await;
    read.expect("an end of the connection").expect("an answer, and not a torn connection");
    String::from_utf8_lossy(&said).into_owned()
}

async fn messages(semel: &Semel) -> i64 {
    semel.in_file("SELECT COUNT(*) FROM semel_messages").await
}

#[tokio::test]
async fn heads_that_are_too_large_are_refused() {
    let semel = Semel::start(&["counter"]).await;
    let large = format!("x-large: {}\r\n", "x".repeat(200 << 10));
    let many: String = (0..1000).map(|n| format!("x-{n}: 1\r\n")).collect();
    let endless = "y".repeat(1 << 20);
    for headers in [&large, &many, &endless] {
        let head = format!("POST /fn/counter HTTP/1.1\r\nhost: test\r\ncontent-length: 0\r\n{headers}\r\n");
        let said = semel.raw(head.as_bytes()).await;
        assert!(said.starts_with("HTTP/1.1 431 "), "{said}");
    }
    let path = format!("POST /fn/{} HTTP/1.1\r\nhost: test\r\n\r\n", "x".repeat(100 << 10));
    let said = semel.raw(path.as_bytes()).await;
    assert!(said.starts_with("HTTP/1.1 431 ") || said.starts_with("HTTP/1.1 414 "), "{said}");
    assert_eq!(messages(&semel).await, 0);
}

#[tokio::test]
async fn keys_that_are_no_keys_are_refused() {
    let semel = Semel::start(&["counter"]).await;
    semel.post("/fn/counter", "visits").key(&"k".repeat(10_000)).send().await.problem(400);
    semel.post("/fn/counter", "visits").header("idempotency-key", b"a\tb").send().await.problem(400);
    for control in ["\x01", "\x1b[2J", "\x7f", "\0"] {
        let head = "POST /fn/counter HTTP/1.1\r\nhost: test\r\nconnection: close\r\ncontent-length: 0\r\n";
        let said = semel.raw(format!("{head}idempotency-key: a{control}b\r\n\r\n").as_bytes()).await;
        assert!(said.starts_with("HTTP/1.1 400 "), "{control:?}: {said}");
    }
    assert_eq!(messages(&semel).await, 0);
}

/// A body is bytes: nobody looks into it on the way.
#[tokio::test]
async fn deeply_nested_json_is_a_body_like_any_other() {
    let semel = Semel::start(&["receipts"]).await;
    let nested = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let post = semel.post("/fn/receipts", nested.clone()).header("content-type", "application/json");
    let answer = post.send().await;
    assert_eq!(answer.status, 202, "{}", answer.text());
    let kept: Vec<u8> = semel.in_file("SELECT body FROM semel_messages").await;
    assert!(kept == nested.as_bytes(), "{} bytes were kept", kept.len());
    let event = semel.post("/fn/receipts", nested).header("content-type", "application/cloudevents+json");
    event.send().await.problem(400);
}

/// Said beforehand, not a byte of it needs to come. Said or not, it is not read to its end.
#[tokio::test]
async fn bodies_over_the_limit_are_refused_at_once() {
    let semel = Semel::start(&["counter"]).await;
    semel.post("/fn/counter", vec![b'x'; 10 << 20]).send().await.problem(413);
    let length = 200 << 20;
    for line in ["POST /fn/counter", "PUT /v1/functions/large", "POST /count/visits"] {
        let head = format!(
            "{line} HTTP/1.1\r\nhost: test\r\ncontent-length: {length}\r\ncontent-type: multipart/form-data; \
             boundary=x\r\n\r\n--x\r\n"
        );
        let mut stream = connect(&semel).await;
        stream.write_all(head.as_bytes()).await.expect("a host that reads");
        let mut said = [0; 13];
        timeout(LONG, stream.read_exact(&mut said)).await.expect("an answer").expect("an answer");
        assert_eq!(&said, b"HTTP/1.1 413 ", "{line}");
    }
    let head = "PUT /v1/functions/large HTTP/1.1\r\nhost: test\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\
                content-type: multipart/form-data; boundary=x\r\n\r\n";
    let part = "--x\r\ncontent-disposition: form-data; name=\"component\"; filename=\"a.wasm\"\r\n\r\n";
    let mut unsaid = format!("{head}{:x}\r\n{part}\r\n{:x}\r\n", part.len(), 66 << 20).into_bytes();
    unsaid.resize(unsaid.len() + (66 << 20), 0);
    let said = semel.raw(&unsaid).await;
    assert!(said.starts_with("HTTP/1.1 413 "), "{said}");
    assert_eq!(messages(&semel).await, 0);
}

#[tokio::test]
async fn who_is_too_slow_is_sent_away() {
    let limits = "head_time = \"700ms\"\nbody_time = \"700ms\"\nrequest_time = \"2s\"";
    let (semel, _host) = with_limits(limits, &["counter"]).await;

    // A body that does not come to its end, be it that nothing comes or that it trickles.
    let mut silent = connect(&semel).await;
    let head = "POST /fn/counter HTTP/1.1\r\nhost: test\r\ncontent-length: 10\r\n\r\nvisit";
    silent.write_all(head.as_bytes()).await.expect("a host that reads");
    let said = rest(&mut silent).await;
    assert!(said.starts_with("HTTP/1.1 408 ") && said.contains("application/problem+json"), "{said}");
    let mut endless = connect(&semel).await;
    let head = "POST /fn/counter HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\n";
    endless.write_all(head.as_bytes()).await.expect("a host that reads");
    assert!(trickle(endless, b"1\r\nx\r\n").await.starts_with("HTTP/1.1 408 "));

    // A deployment that trickles: half of the time of a request.
    let mut upload = connect(&semel).await;
    let head = "PUT /v1/functions/slow HTTP/1.1\r\nhost: test\r\ncontent-length: 100000\r\ncontent-type: \
                multipart/form-data; boundary=x\r\n\r\n--x\r\ncontent-disposition: form-data; name=\"manifest\"\r\n\r\n";
    upload.write_all(head.as_bytes()).await.expect("a host that reads");
    assert!(trickle(upload, b"#").await.starts_with("HTTP/1.1 408 "));

    // A head that trickles, and a connection on which nothing is ever said, are closed without an answer.
    let mut head = connect(&semel).await;
    head.write_all(b"POST /fn/counter HTTP/1.1\r\nhost: test\r\n").await.expect("a host that reads");
    let said = trickle(head, b"x-slow: 1\r\n").await;
    assert!(!said.starts_with("HTTP/1.1 2"), "{said}");
    assert_eq!(rest(&mut connect(&semel).await).await, "");

    // A request as a whole.
    let waits = semel.post("/fn/counter", "visits").header("semel-delay", "1h").wait(30).send().await;
    assert!(waits.problem(503).contains("2s"), "{}", waits.text());
    assert_eq!(semel.call("counter", "visits").await.status, 200, "others are served");
    assert_eq!(messages(&semel).await, 2);
}

/// More answers than there is room for on the way, to a client that reads none of them.
#[tokio::test]
async fn who_does_not_take_his_answers_is_sent_away() {
    let (semel, _host) = with_limits("body_time = \"700ms\"", &[]).await;
    let deaf = connect(&semel).await;
    let requests = "GET /openapi.json HTTP/1.1\r\nhost: test\r\n\r\n".repeat(400);
    deaf.writable().await.expect("a connection");
    assert!(deaf.try_write(requests.as_bytes()).expect("room for requests") > 10_000);
    // The host's end of it, as the system lists it: own address, the other's, state 01 for an open one.
    let ports = [deaf.peer_addr(), deaf.local_addr()].map(|address| format!(":{:04X}", address.expect("it").port()));
    let is_open = || {
        let list = std::fs::read_to_string("/proc/net/tcp").expect("connections");
        let rows = list.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        rows.skip(1).any(|row| row[1].ends_with(&ports[0]) && row[2].ends_with(&ports[1]) && row[3] == "01")
    };
    assert!(is_open());
    until("its end", async || (!is_open()).then_some(())).await;
}

/// Sends a little again and again until the host closes, and returns what it said.
async fn trickle(stream: TcpStream, little: &[u8]) -> String {
    let (mut reader, mut writer) = stream.into_split();
    let end = Instant::now() + LONG;
    let mut said = Vec::new();
    loop {
        assert!(Instant::now() < end, "the host takes this for {LONG:?}");
        let _ = writer.write_all(little).await; // Refused at the end, which is seen by reading.
        match timeout(Duration::from_millis(50), reader.read_buf(&mut said)).await {
            Err(_) => {}
            Ok(Ok(1..)) => {}
            Ok(Ok(0) | Err(_)) => return String::from_utf8_lossy(&said).into_owned(),
        }
    }
}

/// Idle connections take all places; who comes then is told so, and when they go it is as before.
#[tokio::test]
async fn connections_have_a_bound() {
    let (semel, _host) = with_limits("connections = 8\nhead_time = \"60s\"", &["counter"]).await;
    let mut idle = Vec::new();
    let refused = until("a connection too many", async || {
        let mut stream = connect(&semel).await;
        let mut said = vec![0; 1024];
        match timeout(Duration::from_millis(300), stream.read(&mut said)).await {
            Err(_) => {
                idle.push(stream);
                assert!(idle.len() <= 8, "more than 8 connections");
                None
            }
            Ok(read) => Some(String::from_utf8_lossy(&said[..read.expect("an answer")]).into_owned()),
        }
    });
    let refused = refused.await;
    assert!(refused.starts_with("HTTP/1.1 503 ") && refused.contains("retry-after: 1"), "{refused}");
    drop(idle);
    let client = reqwest::Client::builder().no_proxy().build().expect("a client");
    until("a place", async || {
        let answer = client.get(format!("{}/healthz", semel.url())).send().await;
        answer.ok().filter(|answer| answer.status() == 200).map(drop)
    })
    .await;
}

/// Methods that a path does not have, on every kind of path.
#[tokio::test]
async fn other_methods_are_answered_with_those_that_there_are() {
    let semel = Semel::start(&["counter"]).await;
    for (method, path, allowed) in [
        ("GET", "/fn/counter", "POST"),
        ("DELETE", "/fn/nobody", "POST"),
        ("OPTIONS", "/count/visits", "GET, POST"),
        ("POST", "/v1/messages", "GET,HEAD"),
        ("TRACE", "/healthz", "GET,HEAD"),
        ("QUERY", "/metrics", "GET,HEAD"),
    ] {
        let answer = semel.request(method.parse().expect("a method"), path).send().await;
        answer.problem(405);
        assert_eq!(answer.header("allow"), allowed, "{method} {path}");
    }
}

/// SIGTERM while something runs: probes are told, what runs may end, nothing new is taken, and the process ends.
#[tokio::test]
async fn a_host_that_stops_says_so_until_its_end() {
    let mut semel = Semel::start(&[]).await;
    semel.deploy(built("misbehave").with(r#"timeout = "1s""#, "timeout = \"20s\"\nlease = \"30s\"")).await;
    semel.stop().await;
    let mut host = semel.serve(&[]).await;
    let slow = semel.send("misbehave", r#"{"do": "sleep-loop", "millis": 4000}"#).await;
    until("a start", async || (semel.state(&slow).await == "running").then_some(())).await;
    let pid = host.id().and_then(|id| rustix::process::Pid::from_raw(id.cast_signed())).expect("a process");
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("a signal");
    let answer = until("a host that stops", async || {
        let answer = semel.get("/readyz").await;
        (answer.status == 503).then_some(answer)
    });
    let answer = answer.await;
    assert!(answer.problem(503).contains("stopping"));
    assert_eq!((answer.header("retry-after"), answer.header("connection")), ("1", "close"));
    assert!(semel.post("/fn/misbehave", r#"{"do": "ok"}"#).send().await.problem(503).contains("stopping"));
    assert_eq!(semel.get("/healthz").await.status, 200, "it is alive all the same");
    let status = timeout(LONG, host.wait()).await.expect("an end").expect("an end");
    assert!(status.success(), "{status}: {}", semel.log());
    assert_eq!(messages(&semel).await, 1);
    assert_eq!(semel.in_file::<String>("SELECT state FROM semel_history").await, "completed");
}
