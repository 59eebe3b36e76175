//! `deferred-http`: requests that are a part of the commit, and are sent after it. The server is real and counts.

use serde_json::{Value, json};

use crate::harness::{Function, On, Semel, built, on_every_store, until};
use crate::outside::{Server, Then};

on_every_store!(
    what_is_deferred_is_sent_after_the_commit_and_never_without_it,
    a_server_that_is_away_is_asked_again_with_the_same_key,
    a_request_that_cannot_succeed_is_dead_and_can_be_redriven,
    whoever_asked_for_a_reply_is_told_how_it_ended,
    a_request_on_its_way_outlives_its_host,
    what_is_not_granted_is_not_deferred
);

pub(crate) const OK: &[u8] = b"HTTP/1.1 202 Accepted\r\ncontent-type: text/plain\r\ncontent-length: 2\r\n\r\nok";
const BUSY: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n";
const MISSING: &[u8] = b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n";

pub(crate) fn mailer(server: &Server) -> Function {
    built("mailer").with("127.0.0.1:7800", &server.address.to_string())
}

async fn start(on: On, then: Then) -> (Semel, Server) {
    let (semel, server) = (Semel::start_on(on, &[]).await, Server::start(then).await);
    semel.deploy(mailer(&server)).await;
    (semel, server)
}

/// Sends an order to `mailer`, and returns its answer: the id of the request.
async fn order(semel: &Semel, server: &Server, more: &Value) -> String {
    let mut order = json!({ "to": "alice", "service": format!("http://{}/send?key=secret", server.address) });
    order.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
    let answer = semel.call("mailer", &order.to_string()).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.text().to_owned()
}

/// The `Idempotency-Key` of each request that the server has seen.
pub(crate) fn keys(server: &Server) -> Vec<String> {
    let requests = server.requests.lock().expect("a lock");
    let key =
        |request: &String| request.lines().find_map(|line| line.strip_prefix("idempotency-key: ")).map(str::to_owned);
    requests.iter().map(|request| key(request).expect("a key")).collect()
}

async fn outbox(semel: &Semel) -> Vec<Value> {
    semel.get("/v1/outbox").await.ok()["requests"].as_array().expect("requests").clone()
}

async fn what_is_deferred_is_sent_after_the_commit_and_never_without_it(on: On) {
    let (semel, server) = start(on, Then::Say(OK)).await;
    let id = order(&semel, &server, &json!({ "fail": 2 })).await;
    assert_eq!(semel.until_settled(&id).await["state"], "completed");
    assert_eq!(keys(&server), std::slice::from_ref(&id), "two attempts were rolled back with their requests");
    let request = server.requests.lock().expect("a lock")[0].clone();
    assert!(
        request.starts_with("POST /send?key=secret HTTP/1.1\r\n") && request.ends_with("\r\n\r\nalice"),
        "{request}"
    );
    assert!(!request.contains("semel-"), "what is the host's own stays here: {request}");
    let listed = outbox(&semel).await;
    let shown = |key: &str| listed[0][key].clone();
    assert_eq!((listed.len(), shown("id"), shown("state")), (1, json!(id), json!("completed")));
    assert_eq!(shown("url"), format!("http://{}/send", server.address), "without the query");
    assert_eq!((shown("method"), shown("function")), (json!("POST"), json!("mailer")));
    let shown = semel.cli(&["outbox", "--state", "completed"]).await;
    assert!(shown.ok().contains(&id) && !shown.stdout.contains("secret"), "{}", shown.stdout);
    // An order that fails to the end leaves nothing to send.
    let order = json!({ "to": "bob", "service": format!("http://{}/send?key=secret", server.address), "fail": 99 });
    let dead = semel.send("mailer", &order.to_string()).await;
    assert_eq!(semel.until_settled(&dead).await["state"], "dead");
    assert_eq!((outbox(&semel).await.len(), keys(&server).len()), (1, 1));
    assert_eq!(semel.sql("SELECT count(*) FROM mails").await, json!([[1]]));
}

async fn a_server_that_is_away_is_asked_again_with_the_same_key(on: On) {
    let (semel, server) = start(on, Then::Change(2, BUSY, OK)).await;
    let id = order(&semel, &server, &json!({})).await;
    assert_eq!(semel.until_settled(&id).await["state"], "completed");
    assert_eq!(semel.outcomes(&id).await, ["failed", "failed", "completed"]);
    assert_eq!(keys(&server), [id.clone(), id.clone(), id]);
}

async fn a_request_that_cannot_succeed_is_dead_and_can_be_redriven(on: On) {
    let (semel, server) = start(on, Then::Change(1, MISSING, OK)).await;
    let id = order(&semel, &server, &json!({})).await;
    let message = semel.until_settled(&id).await;
    assert_eq!((&message["state"], &message["last_error"]["kind"]), (&json!("dead"), &json!("refused")));
    assert!(message["last_error"]["message"].as_str().expect("a text").contains("404"), "{message}");
    // The server has answered, so it has happened: a person says that it may happen again.
    let redrive = async |body: &'static str| semel.post(&format!("/v1/messages/{id}/redrive"), body).send().await;
    let refused = redrive("").await;
    assert!(refused.status == 409 && refused.text().contains("happened once"), "{}", refused.text());
    redrive(r#"{"yes": true}"#).await.ok();
    assert_eq!(semel.until_settled(&id).await["state"], "completed");
    assert_eq!(keys(&server), [id.clone(), id]);
}

async fn whoever_asked_for_a_reply_is_told_how_it_ended(on: On) {
    let (semel, server) = start(on, Then::Change(1, OK, MISSING)).await;
    semel.deploy(built("receipts").with("topics = [\"receipts\"]", "topics = [\"mailed\"]")).await;
    for bodies in [json!([["ok"]]), json!([[""], ["ok"]])] {
        let id = order(&semel, &server, &json!({ "reply_topic": "mailed" })).await;
        assert_eq!(semel.until_settled(&id).await["state"], "completed", "told is told");
        let told = bodies.as_array().expect("rows").len() as u64;
        until("the reply", async || (semel.count("receipts", "completed").await == told).then_some(())).await;
        assert_eq!(semel.sql("SELECT body FROM receipts ORDER BY body").await, bodies);
    }
    assert_eq!(keys(&server).len(), 2);
}

async fn a_request_on_its_way_outlives_its_host(on: On) {
    let (mut semel, server) = start(on, Then::Hold(b"")).await;
    let id = order(&semel, &server, &json!({})).await;
    until("the request", async || (keys(&server).len() == 1).then_some(())).await;
    semel.kill().await;
    semel.restart().await;
    until("the request once more", async || (keys(&server).len() == 2).then_some(())).await;
    assert_eq!(keys(&server), [id.clone(), id.clone()]);
    assert_eq!(semel.outcomes(&id).await[0], "host-lost");
}

async fn what_is_not_granted_is_not_deferred(on: On) {
    let (semel, server) = start(on, Then::Say(OK)).await;
    for (service, why) in [
        ("http://127.0.0.1:1/", "not granted"),
        ("http://169.254.169.254/", "not granted"),
        ("ftp://127.0.0.1/", "invalidurl"),
        ("", "invalidurl"),
    ] {
        let order = json!({ "to": "alice", "service": service });
        let refused = semel.call("mailer", &order.to_string()).await;
        assert_eq!(refused.status, 422, "{service}: {}", refused.text());
        assert!(refused.text().to_lowercase().contains(why), "{service}: {}", refused.text());
    }
    let order =
        json!({ "to": "a", "service": format!("http://{}/send?key=secret", server.address), "reply_topic": "others" });
    assert!(semel.call("mailer", &order.to_string()).await.text().contains("not granted"));
    assert!(outbox(&semel).await.is_empty() && server.connections() == 0);
    // Nobody gets at the sender but by way of the interface.
    assert_eq!(semel.post("/fn/deferred-http", "").send().await.status, 404);
    for (from, to) in [
        ("name = \"mailer\"", "name = \"deferred-http\""),
        ("topics = [\"mailed\"]", "topics = [\"deferred-http\"]"),
        ("contract = \"finish-once\"", "contract = \"finish-once\"\napp = \"semel\""),
    ] {
        let refused = semel.try_deploy(mailer(&server).with(from, to)).await;
        assert!(refused.status == 422 && refused.text().contains("Semel's own"), "{}", refused.text());
    }
}
