//! Sinks: what functions publish leaves after the commit, at least once, in order, and holds up nobody else. Here by webhooks;
//! what is a broker's own is in its own file.

use std::net::TcpListener;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;

use crate::harness::{On, Semel, Start, built, on_every_store, until};
use crate::outside::{Server, Then};

on_every_store!(
    what_is_published_is_sent_once_committed_and_never_without_it,
    a_receiver_knows_events_and_who_has_sent_them,
    what_may_pass_is_sent_again_and_what_cannot_is_a_dead_letter_that_holds_up_nobody,
    a_sink_that_is_down_stops_no_other_and_keeps_the_order_of_groups,
    an_event_whose_end_was_not_recorded_is_sent_again_with_its_id
);

pub(crate) const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
const BUSY: &[u8] = b"HTTP/1.1 503 Busy\r\nretry-after: 0\r\ncontent-length: 0\r\n\r\n";
const LIMIT: &[u8] = b"HTTP/1.1 429 Slow Down\r\nretry-after: 1\r\ncontent-length: 0\r\n\r\n";
const MOVED: &[u8] = b"HTTP/1.1 301 Moved\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n";
const GONE: &[u8] = b"HTTP/1.1 410 Gone\r\ncontent-length: 0\r\n\r\n";
const KEY: &[u8; 24] = b"0123456789abcdef01234567";

/// A section of the configuration for a sink of the topic that `sqlshell` publishes to.
fn webhook(name: &str, port: u16, more: &str) -> String {
    format!(
        "[sinks.{name}]\nkind = \"webhook\"\ntopics = [\"receipts\"]\nurl = \"http://127.0.0.1:{port}/hook\"\n{more}\n"
    )
}

/// A host with this configuration, and `sqlshell`.
async fn start(on: On, configuration: &str) -> Semel {
    let mut semel = Semel::start_on(on, &["sqlshell"]).await;
    configure(&mut semel, configuration).await;
    semel
}

pub(crate) async fn configure(semel: &mut Semel, configuration: &str) {
    semel.stop().await;
    std::fs::write(semel.folder().join("semel.toml"), configuration).expect("a configuration");
    semel.restart().await;
}

/// One message that publishes these, and what it answered.
pub(crate) async fn publish(semel: &Semel, events: &[(&str, Option<&str>)]) {
    let step = |(body, group): &(&str, Option<&str>)| json!({ "publish": { "topic": "receipts", "body": body, "group": group } });
    let steps: Vec<_> = events.iter().map(step).collect();
    let answer = semel.call("sqlshell", &json!({ "statements": steps }).to_string()).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
}

async fn outbox(semel: &Semel, sink: &str) -> Value {
    semel.get(&format!("/v1/outbox?sink={sink}")).await.ok()
}

/// Waits until every event for the sink has ended. Returns them, the oldest first.
async fn ended(semel: &Semel, sink: &str, count: usize) -> Vec<Value> {
    until("the end of all events", async || {
        let mut events = outbox(semel, sink).await["events"].as_array().expect("events").clone();
        events.reverse();
        let open = |event: &&Value| ["available", "running"].contains(&event["state"].as_str().unwrap_or_default());
        (events.len() == count && events.iter().find(open).is_none()).then_some(events)
    })
    .await
}

fn header<'a>(request: &'a str, name: &str) -> &'a str {
    request
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
        .unwrap_or_else(|| panic!("no {name}: {request}"))
}

fn body(request: &str) -> &str {
    request.split_once("\r\n\r\n").expect("a body").1
}

fn requests(server: &Server) -> Vec<String> {
    server.requests.lock().expect("a lock").clone()
}

async fn what_is_published_is_sent_once_committed_and_never_without_it(on: On) {
    let server = Server::start(Then::Say(OK)).await;
    let semel = start(on, &webhook("one", server.port(), "")).await;
    semel.deploy(built("misbehave")).await;
    let failed = semel.send("misbehave", r#"{"do": "publish-then-error"}"#).await;
    assert_eq!(semel.until_settled(&failed).await["state"], "dead");
    publish(&semel, &[("a", None), ("b", Some("group"))]).await;
    let events = ended(&semel, "one", 2).await;
    assert!(events.iter().all(|event| event["state"] == "completed" && event["attempt"] == 1), "{events:?}");
    let mut ids: Vec<_> = requests(&server).iter().map(|request| header(request, "webhook-id").to_owned()).collect();
    ids.sort();
    let mut known: Vec<_> = events.iter().map(|event| event["event"].as_str().expect("an id").to_owned()).collect();
    known.sort();
    assert_eq!(ids, known, "what was rolled back was not sent, and the rest once");
    let shown = semel.cli(&["outbox", "--sink", "one"]).await;
    assert!(shown.ok().contains("webhook") && shown.stdout.contains(&ids[0]), "{}", shown.stdout);
}

async fn a_receiver_knows_events_and_who_has_sent_them(on: On) {
    let (structured, binary) = (Server::start(Then::Say(OK)).await, Server::start(Then::Say(OK)).await);
    let mut semel = Semel::start_on(on, &["sqlshell"]).await;
    let secret = semel.folder().join("secret");
    std::fs::write(&secret, format!("whsec_{}\n", STANDARD.encode(KEY))).expect("a secret");
    let signed = format!("secret_file = {:?}", secret.display().to_string());
    let binary_too = webhook("two", binary.port(), &format!("{signed}\nformat = \"binary\""));
    configure(&mut semel, &(webhook("one", structured.port(), &signed) + &binary_too)).await;
    publish(&semel, &[("{\"n\":1}", Some("a b"))]).await;
    let event = &ended(&semel, "one", 1).await[0];
    assert_eq!(ended(&semel, "two", 1).await[0]["event"], event["event"], "one event, whoever gets it");
    for server in [&structured, &binary] {
        let request = &requests(server)[0];
        let (id, time) = (header(request, "webhook-id"), header(request, "webhook-timestamp"));
        let mut mac = <Hmac<Sha256> as KeyInit>::new_from_slice(KEY).expect("a key");
        mac.update(format!("{id}.{time}.{}", body(request)).as_bytes());
        let signature = format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()));
        assert_eq!((id, header(request, "webhook-signature")), (event["event"].as_str().expect("an id"), &*signature));
        assert_eq!(header(request, "idempotency-key"), id);
    }
    let request = &requests(&structured)[0];
    assert_eq!(header(request, "content-type"), "application/cloudevents+json");
    let document: Value = serde_json::from_str(body(request)).expect("JSON");
    assert_eq!(
        (&document["specversion"], &document["id"], &document["type"], &document["partitionkey"]),
        (&json!("1.0"), &event["event"], &json!("receipts"), &json!("a b"))
    );
    assert_eq!(document["data_base64"], STANDARD.encode("{\"n\":1}"), "of no known type");
    assert_eq!(document["time"], event["created_at"]);
    let request = &requests(&binary)[0];
    assert_eq!((header(request, "ce-id"), body(request)), (event["event"].as_str().expect("an id"), "{\"n\":1}"));
    assert_eq!((header(request, "ce-type"), header(request, "ce-partitionkey")), ("receipts", "a%20b"));
}

async fn what_may_pass_is_sent_again_and_what_cannot_is_a_dead_letter_that_holds_up_nobody(on: On) {
    for (place, (then, state, attempts)) in [
        (Then::Change(2, BUSY, OK), "completed", 3),
        (Then::Change(1, LIMIT, OK), "completed", 2),
        (Then::Change(1, MOVED, OK), "completed", 2),
        (Then::Change(1, b"", OK), "completed", 2),
        (Then::Say(GONE), "dead", 1),
        (Then::Endless(b"HTTP/1.1 200 OK\r\n\r\n", &[b'a'; 4096]), "completed", 1),
    ]
    .into_iter()
    .enumerate()
    {
        let server = Server::start(then).await;
        let mut semel = Semel::start_on(on, &["sqlshell"]).await;
        configure(&mut semel, &webhook("one", server.port(), "timeout = \"1s\"")).await;
        publish(&semel, &[("a", Some("g"))]).await;
        let event = &ended(&semel, "one", 1).await[0];
        assert_eq!((&event["state"], &event["attempt"]), (&json!(state), &json!(attempts)), "{place}: {event}");
        let ids: Vec<_> = requests(&server).iter().map(|request| header(request, "webhook-id").to_owned()).collect();
        assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
        assert_eq!(server.connections(), attempts, "nothing was followed");
        if state == "dead" {
            // The next of its group is not held up; a person sends it once more.
            let id = event["id"].as_str().expect("an id");
            semel.post(&format!("/v1/messages/{id}/redrive"), "").send().await.ok();
            publish(&semel, &[("b", Some("g"))]).await;
            assert_eq!(ended(&semel, "one", 2).await[0]["attempt"], 2);
        }
    }
}

async fn a_sink_that_is_down_stops_no_other_and_keeps_the_order_of_groups(on: On) {
    let up = Server::start(Then::Say(OK)).await;
    let port = TcpListener::bind("127.0.0.1:0").and_then(|port| port.local_addr()).expect("a port").port();
    let semel = start(on, &(webhook("down", port, "") + &webhook("up", up.port(), ""))).await;
    let bodies: Vec<String> = (0..30).map(|n| format!("{n:02}")).collect();
    for (n, body) in bodies.iter().enumerate() {
        publish(&semel, &[(body, Some(["a", "b", "c"][n % 3]))]).await;
    }
    ended(&semel, "up", 30).await;
    until("a closed sink", async || {
        let text = semel.get("/metrics").await.text();
        text.contains("semel_sink_up{sink=\"down\"} 0").then_some(())
    })
    .await;
    let ready = semel.get("/readyz").await;
    assert_eq!((ready.status, ready.text()), (200, "ready\nsink:down is closed\n".to_owned()));
    let sinks = outbox(&semel, "down").await["sinks"].take();
    assert!(sinks[0]["trouble"].is_string() && sinks[1]["trouble"].is_null(), "{sinks}");
    let down = Server::start_at(port, Then::Say(OK)).await;
    let events = ended(&semel, "down", 30).await;
    assert!(events.iter().all(|event| event["state"] == "completed"), "{events:?}");
    for server in [&up, &down] {
        let sent: Vec<Value> =
            requests(server).iter().map(|request| serde_json::from_str(body(request)).expect("JSON")).collect();
        for group in ["a", "b", "c"] {
            let its = sent.iter().filter(|event| event["partitionkey"] == group);
            let its: Vec<_> = its
                .map(|event| STANDARD.decode(event["data_base64"].as_str().expect("data")).expect("base64"))
                .collect();
            assert_eq!(its.len(), 10);
            assert!(its.is_sorted(), "{group}: {its:?}");
        }
    }
    assert_eq!(semel.get("/readyz").await.text(), "ready\n");
}

async fn an_event_whose_end_was_not_recorded_is_sent_again_with_its_id(on: On) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let fired = folder.path().join("fired");
    let armed = [("SEMEL_CRASH", "relay.sent:kill"), ("SEMEL_CRASH_FIRED", fired.to_str().expect("a path"))];
    let server = Server::start(Then::Say(OK)).await;
    let mut semel = Semel::start_as(Start { on, variables: &armed, ..Start::default() }, &["sqlshell"]).await;
    configure(&mut semel, &webhook("one", server.port(), "")).await;
    let steps = json!({ "statements": [{ "publish": { "topic": "receipts", "body": "a" } }] });
    semel.send("sqlshell", &steps.to_string()).await;
    semel.ended().await;
    assert_eq!(
        (std::fs::read_to_string(&fired).expect("it fired").as_str(), server.connections()),
        ("relay.sent\n", 1)
    );
    let _unarmed = semel.serve(&["--config", "semel.toml"]).await;
    let event = &ended(&semel, "one", 1).await[0];
    assert_eq!(event["state"], "completed");
    let ids: Vec<_> = requests(&server).iter().map(|request| header(request, "webhook-id").to_owned()).collect();
    assert_eq!(ids, vec![event["event"].as_str().expect("an id"); 2]);
}
