//! What may be watched from outside: metrics, spans, and a log in which nobody else can write lines.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::harness::{On, Semel, Start, on_every_store, until};

on_every_store!(
    metrics_say_what_happened_and_what_waits,
    what_waits_has_an_age,
    every_attempt_has_a_span_that_links_back_to_its_request
);

/// Every sample of a scrape by its name and labels.
async fn scrape(semel: &Semel) -> BTreeMap<String, f64> {
    let answer = semel.get("/metrics").await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(answer.header("content-type").starts_with("application/openmetrics-text"));
    let text = answer.text();
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| {
            let (name, value) = line.rsplit_once(' ').expect("a sample");
            (name.to_owned(), value.parse().expect("a number"))
        })
        .collect()
}

async fn metrics_say_what_happened_and_what_waits(on: On) {
    let semel = Semel::start_on(on, &["counter", "misbehave"]).await;
    for _ in 0..3 {
        assert_eq!(semel.post("/fn/counter", "visits").wait(30).send().await.status, 200);
    }
    semel.post("/fn/counter", "keyed").key("k").wait(30).send().await;
    semel.post("/fn/counter", "keyed").key("k").wait(30).send().await;
    semel.post("/fn/counter", "later").header("semel-delay", "1h").send().await;
    semel.call("misbehave", r#"{"do": "reject"}"#).await.problem(422);
    semel.post("/fn/nobody", "").send().await.problem(404);
    semel.post("/nowhere", "").send().await.problem(404);
    // The answer to a wait may leave before the last number is counted.
    let samples = until("the last number", async || {
        let samples = scrape(&semel).await;
        let depth = samples.get(r#"semel_queue_messages{function="misbehave",state="dead"}"#);
        (depth == Some(&1.0) && samples[r#"semel_running{function="misbehave"}"#] == 0.0).then_some(samples)
    });
    let samples = samples.await;
    for (name, value) in [
        (r#"semel_messages_accepted_total{function="counter"}"#, 5.0),
        (r#"semel_messages_accepted_total{function="misbehave"}"#, 1.0),
        (r#"semel_messages_duplicate_total{function="counter"}"#, 1.0),
        (r#"semel_attempts_total{function="counter",outcome="completed"}"#, 4.0),
        (r#"semel_attempts_total{function="misbehave",outcome="refused"}"#, 1.0),
        (r#"semel_run_seconds_count{function="counter"}"#, 4.0),
        ("semel_commit_seconds_count", 4.0),
        (r#"semel_running{function="counter"}"#, 0.0),
        (r#"semel_queue_messages{function="counter",state="available"}"#, 1.0),
        (r#"semel_queue_messages{function="counter",state="dead"}"#, 0.0),
        (r#"semel_http_answers_total{route="/fn/{name}",status="200"}"#, 5.0),
        (r#"semel_http_answers_total{route="/fn/{name}",status="202"}"#, 1.0),
        (r#"semel_http_answers_total{route="/fn/{name}",status="404"}"#, 1.0),
        (r#"semel_http_answers_total{route="/fn/{name}",status="422"}"#, 1.0),
        (r#"semel_http_answers_total{route="other",status="404"}"#, 1.0),
        ("semel_backlog_refusals_total", 0.0),
    ] {
        assert_eq!(samples.get(name), Some(&value), "{name} in {samples:#?}");
    }
    assert!((1.0..=5.0).contains(&samples["semel_claim_seconds_count"]), "{samples:#?}");
    assert!(samples["semel_run_seconds_sum{function=\"counter\"}"] > 0.0);
    assert!(samples["process_resident_memory_bytes"] > 1e6 && samples["process_open_fds"] > 5.0);
    let aged = r#"semel_queue_oldest_age_seconds{function="counter"}"#;
    assert!(!samples.contains_key(aged), "what is not due yet has no age");
    assert!(!samples.keys().any(|name| name.contains("nobody")), "a sender's text is no label");

    let text = semel.get("/metrics").await.text();
    let families: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    assert!(families.len() >= 15, "{families:?}");
    for family in families {
        assert!(family.starts_with("semel_") || family.starts_with("process_"), "{family}");
        assert!(text.contains(&format!("# HELP {family} ")), "{family} says nothing about itself");
    }
    assert!(text.ends_with("# EOF\n"));
}

async fn what_waits_has_an_age(on: On) {
    let mut semel = Semel::start_on(on, &["counter"]).await;
    semel.stop().await;
    let _host = semel.serve(&["--no-workers"]).await;
    semel.send("counter", "visits").await;
    semel.send("counter", "visits").await;
    let age = async || scrape(&semel).await.get(r#"semel_queue_oldest_age_seconds{function="counter"}"#).copied();
    let first = until("an age", age).await;
    until("a greater age", async || age().await.filter(|age| *age >= first + 0.5)).await;
    assert_eq!(scrape(&semel).await[r#"semel_queue_messages{function="counter",state="available"}"#], 2.0);
}

/// A collector that takes whatever it is sent. Its spans are those of all exports, in the order of their arrival.
struct Collector {
    url: String,
    spans: Arc<Mutex<Vec<Value>>>,
}

impl Collector {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let spans: Arc<Mutex<Vec<Value>>> = Arc::default();
        let found = Arc::clone(&spans);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(take(stream, Arc::clone(&found)));
            }
        });
        Self { url, spans }
    }

    fn spans(&self) -> Vec<Value> {
        self.spans.lock().expect("a lock").clone()
    }
}

/// Requests of one connection, as plainly as HTTP allows.
async fn take(mut stream: TcpStream, spans: Arc<Mutex<Vec<Value>>>) {
    let mut read = Vec::new();
    loop {
        let end = read.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4);
        let head = String::from_utf8_lossy(&read[..end.unwrap_or(0)]).to_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
        let Some(whole) = end.map(|end| end + length.unwrap_or(0)).filter(|whole| read.len() >= *whole) else {
            match stream.read_buf(&mut read).await {
                Ok(1..) => continue,
                _ => return,
            }
        };
        assert!(head.starts_with("post /v1/traces http/1.1") && head.contains("application/json"), "{head}");
        let export: Value = serde_json::from_slice(&read[end.unwrap_or(0)..whole]).expect("JSON");
        let about = &export["resourceSpans"][0]["resource"];
        assert_eq!(attributes(about).get("service.name").map(String::as_str), Some("semel"), "{about}");
        let scopes = export["resourceSpans"].as_array().into_iter().flatten();
        let scopes = scopes.flat_map(|resource| resource["scopeSpans"].as_array().cloned().unwrap_or_default());
        let found = scopes.flat_map(|scope| scope["spans"].as_array().cloned().unwrap_or_default());
        spans.lock().expect("a lock").extend(found);
        read.drain(..whole);
        let answer = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}";
        if stream.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
    }
}

/// The attributes of a span or resource, whatever their type.
fn attributes(span: &Value) -> BTreeMap<String, String> {
    let attributes = span["attributes"].as_array().expect("attributes").iter();
    let text = |value: &Value| {
        let value = value.as_object().and_then(|value| value.values().next().cloned()).unwrap_or_default();
        value.as_str().map_or_else(|| value.to_string(), str::to_owned)
    };
    attributes.map(|one| (one["key"].as_str().expect("a key").to_owned(), text(&one["value"]))).collect()
}

async fn traceparents(semel: &Semel) -> Vec<Option<String>> {
    let list = match semel.on {
        On::Sqlite => "SELECT json_group_array(json(headers)) FROM (SELECT headers FROM semel_messages ORDER BY seq)",
        On::Postgres => "SELECT json_agg(headers::json ORDER BY seq)::text FROM semel_messages",
        On::Mariadb => "SELECT CONCAT('[', GROUP_CONCAT(headers ORDER BY seq), ']') FROM semel_messages",
    };
    let list: String = semel.in_store(list).await;
    let list: Vec<Vec<(String, String)>> = serde_json::from_str(&list).expect("lists of headers");
    let find = |headers: Vec<(String, String)>| headers.into_iter().find(|(name, _)| name == "traceparent");
    list.into_iter().map(|headers| find(headers).map(|(_, value)| value)).collect()
}

async fn every_attempt_has_a_span_that_links_back_to_its_request(on: On) {
    let collector = Collector::start().await;
    let variables = [("SEMEL_OTLP", collector.url.as_str()), ("NO_PROXY", "127.0.0.1")];
    let start = Start { on, variables: &variables, ..Start::default() };
    let mut semel = Semel::start_as(start, &["counter", "misbehave"]).await;
    let (trace, request) = ("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331");
    let parent = format!("00-{trace}-{request}-01");
    let linked = semel.post("/fn/misbehave", r#"{"do": "error"}"#).header("traceparent", &parent).send().await.id();
    semel.until_settled(&linked).await;
    let unsampled = semel.post("/fn/counter", "visits").header("traceparent", format!("00-{trace}-{request}-00"));
    assert_eq!(unsampled.wait(30).send().await.status, 200);
    let alone = semel.post("/fn/counter", "visits").wait(30).send().await.id();
    let broken = semel.post("/fn/counter", "visits").header("traceparent", "00-nonsense").wait(30).send().await.id();
    let kept = traceparents(&semel).await;
    semel.stop().await; // What was not sent yet is sent now.

    let spans = collector.spans();
    let of = |id: &str| {
        let of = |span: &&Value| attributes(span).get("semel.message.id").is_some_and(|found| found == id);
        spans.iter().filter(of).collect::<Vec<_>>()
    };
    let attempts = of(&linked);
    assert_eq!(attempts.len(), 2, "{spans:#?}");
    for (number, span) in attempts.iter().enumerate() {
        assert_eq!((&span["traceId"], &span["parentSpanId"]), (&json!(trace), &json!(request)), "{span:#}");
        assert_eq!((&span["links"][0]["traceId"], &span["links"][0]["spanId"]), (&json!(trace), &json!(request)));
        assert_eq!(span["name"], "attempt misbehave");
        let attributes = attributes(span);
        for (name, value) in [
            ("semel.function", "misbehave"),
            ("semel.version", "1"),
            ("semel.attempt", &(number + 1).to_string()),
            ("semel.outcome", "failed"),
            ("semel.contract", "finish-once"),
            ("semel.label", "transactional"),
        ] {
            assert_eq!(attributes.get(name).map(String::as_str), Some(value), "{name} in {attributes:?}");
        }
        assert!(attributes["semel.fuel"].parse::<u64>().expect("a number") > 0);
        let nanos = |name: &str| span[name].as_str().expect("nanoseconds").parse::<u64>().expect("nanoseconds");
        assert!(nanos("startTimeUnixNano") < nanos("endTimeUnixNano"), "{span:#}");
    }

    // Where the request names no span, that of its acceptance is made and named in the message.
    let [attempt] = of(&alone)[..] else { panic!("{spans:#?}") };
    let accept =
        spans.iter().find(|span| span["spanId"] == attempt["parentSpanId"]).expect("the span of the acceptance");
    assert_eq!((&accept["name"], &accept["traceId"]), (&json!("accept"), &attempt["traceId"]));
    assert_eq!(attempt["links"][0]["spanId"], accept["spanId"]);
    assert_eq!(attributes(attempt)["semel.outcome"], "completed");
    let id = |span: &Value, name: &str| span[name].as_str().expect("an id").to_owned();
    let own = format!("00-{}-{}-01", id(accept, "traceId"), id(accept, "spanId"));
    let unsampled = format!("00-{trace}-{request}-00");
    assert_eq!(kept, [Some(parent), Some(unsampled), Some(own), Some("00-nonsense".to_owned())]);

    assert_eq!(of(&broken).len(), 1);
    assert_eq!(of(&broken)[0]["links"].as_array().map_or(0, Vec::len), 0, "what is no traceparent links to nothing");
    assert_eq!(spans.len(), 2 + 2 + 1, "the unsampled one sends nothing: {spans:#?}");
}

/// Off by default: nothing is invented. And a collector that is not there costs nothing but spans.
#[tokio::test]
async fn messages_do_not_need_a_collector() {
    let semel = Semel::start(&["counter"]).await;
    semel.call("counter", "visits").await.ok();
    assert_eq!(traceparents(&semel).await, [None]);
    let nobody = [("SEMEL_OTLP", "http://127.0.0.1:1"), ("NO_PROXY", "127.0.0.1")];
    let mut semel = Semel::start_with(&nobody, &["counter"]).await;
    for count in 1..=50 {
        assert_eq!(semel.call("counter", "visits").await.ok()["count"], count);
    }
    semel.stop().await;
}

/// Texts of a guest that would write lines of their own into the log, or speak to the terminal of who reads it.
#[tokio::test]
async fn a_log_has_one_line_per_event_whatever_is_in_it() {
    let semel = Semel::start_with(&[("SEMEL_LOG", "semel=debug")], &["misbehave"]).await;
    let forged = "2026-01-01T00:00:00.000000Z ERROR semel: forged";
    let order = json!({ "do": format!("\n{forged}\r\u{1b}[2J\u{202e}\u{9b}31m{}", "long ".repeat(20_000)) });
    let dead = semel.call("misbehave", &order.to_string()).await;
    assert!(dead.problem(422).contains("forged"), "the guest repeats what it is given");
    let log = until("the end of the attempt", async || Some(semel.log()).filter(|log| log.contains("forged"))).await;
    assert!(log.contains(&format!(r"\n{forged}")), "{log}");
    for line in log.lines() {
        assert!(!line.starts_with(forged), "a forged line: {line}");
        let (time, rest) = line.split_at_checked(27).unwrap_or_default();
        assert!(time.parse::<jiff::Timestamp>().is_ok() && !rest.is_empty(), "not a line of the log: {line:?}");
    }
    assert!(!log.chars().any(|c| c != '\n' && (c.is_control() || c == '\u{202e}')), "{log:?}");
}
