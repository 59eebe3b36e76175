//! CloudEvents 1.0 in, in both modes: what becomes of attributes and data, what counts as the same event, and what is
//! refused.

use serde_json::{Value, json};

use crate::harness::{Answer, Request, Semel};

const STRUCTURED: &str = "application/cloudevents+json; charset=utf-8";

fn binary(semel: &Semel, path: &str, id: &str, body: &str) -> Request {
    let request = semel.post(path, body.to_owned()).header("ce-specversion", "1.0").header("ce-id", id);
    request.header("ce-source", "/shop").header("ce-type", "shop.order")
}

async fn structured(semel: &Semel, event: &Value) -> Answer {
    semel.post("/fn/receipts", event.to_string()).header("content-type", STRUCTURED).send().await
}

fn event(id: &str) -> Value {
    json!({ "specversion": "1.0", "id": id, "source": "/shop", "type": "shop.order" })
}

/// The content type, the body, and the headers `ce-…` of the last message.
async fn last(semel: &Semel) -> (Option<String>, String, Vec<(String, String)>) {
    let of = |column: &str| format!("SELECT {column} FROM semel_messages ORDER BY seq DESC LIMIT 1");
    let headers: String = semel.in_file(&of("headers")).await;
    let headers: Vec<(String, String)> = serde_json::from_str(&headers).expect("headers");
    let mut events: Vec<_> = headers.into_iter().filter(|(name, _)| name.starts_with("ce-")).collect();
    events.sort();
    let body: Vec<u8> = semel.in_file(&of("body")).await;
    (semel.in_file(&of("content_type")).await, String::from_utf8(body).expect("text"), events)
}

fn headers(more: &[(&str, &str)]) -> Vec<(String, String)> {
    let all = [("ce-source", "/shop"), ("ce-specversion", "1.0"), ("ce-type", "shop.order")];
    let mut all: Vec<_> = all.iter().chain(more).map(|(name, value)| ((*name).into(), (*value).into())).collect();
    all.sort();
    all
}

#[tokio::test]
async fn both_modes_become_the_same_message() {
    let semel = Semel::start(&["receipts"]).await;
    let more = |request: Request| {
        request.header("ce-subject", "Euro%20%E2%82%AC").header("ce-time", "2026-01-02T03:04:05.678Z")
    };
    let sent = more(binary(&semel, "/fn/receipts", "1", "{\"a\": 1.0}")).header("content-type", "application/json");
    assert_eq!(sent.send().await.status, 202);
    let expected = headers(&[("ce-id", "1"), ("ce-subject", "Euro €"), ("ce-time", "2026-01-02T03:04:05.678Z")]);
    assert_eq!(last(&semel).await, (Some("application/json".into()), "{\"a\": 1.0}".into(), expected));

    // Data is kept as it was written, spaces and all; what an event says twice in headers is not believed.
    let text = r#"{"specversion":"1.0","id":"2","source":"/shop","type":"shop.order","count":7,"last":true,"subject":null,
                   "data": {"a":  1.0, "b": 1e400}}"#;
    let sent =
        semel.post("/fn/receipts", text).header("content-type", STRUCTURED).header("ce-id", "forged").send().await;
    assert_eq!(sent.status, 202, "{}", sent.text());
    let expected = headers(&[("ce-id", "2"), ("ce-count", "7"), ("ce-last", "true")]);
    assert_eq!(last(&semel).await, (Some("application/json".into()), r#"{"a":  1.0, "b": 1e400}"#.into(), expected));

    for (number, (data, content_type, body)) in [
        (json!({ "datacontenttype": "text/plain", "data": "line\n\"two\"" }), Some("text/plain"), "line\n\"two\""),
        (json!({ "datacontenttype": "image/png", "data_base64": "aGk=" }), Some("image/png"), "hi"),
        (json!({ "datacontenttype": "application/vnd.a+json", "data": "x" }), Some("application/vnd.a+json"), "\"x\""),
        (json!({ "data": null }), None, ""),
        (json!({}), None, ""),
    ]
    .into_iter()
    .enumerate()
    {
        let mut whole = event(&format!("data-{number}"));
        whole.as_object_mut().expect("an object").extend(data.as_object().expect("an object").clone());
        assert_eq!(structured(&semel, &whole).await.status, 202, "{whole}");
        let (kept_type, kept, _) = last(&semel).await;
        assert_eq!((kept_type.as_deref(), kept.as_str()), (content_type, body), "{whole}");
    }
}

#[tokio::test]
async fn source_and_id_are_the_key() {
    let semel = Semel::start(&["counter"]).await;
    let first = binary(&semel, "/fn/counter", "1", "visits").send().await;
    assert_eq!(first.json()["duplicate"], false);
    let again = binary(&semel, "/fn/counter", "1", "visits").send().await;
    assert_eq!((again.id(), &again.json()["duplicate"]), (first.id(), &json!(true)));
    let whole = json!({ "datacontenttype": "text/plain", "data": "visits", "type": "shop.order", "source": "/shop",
                        "id": "7", "specversion": "1.0" });
    let post = async |whole: &Value| {
        semel.post("/fn/counter", whole.to_string()).header("content-type", STRUCTURED).send().await
    };
    let third = post(&whole).await;
    assert_eq!(post(&whole).await.id(), third.id());
    assert_ne!(third.id(), first.id());
    // The same event again in the other mode, and with its JSON in another order, is the same event.
    let other_mode = binary(&semel, "/fn/counter", "7", "visits").header("content-type", "text/plain").send().await;
    assert_eq!(other_mode.id(), third.id());
    let other = binary(&semel, "/fn/counter", "1", "others").send().await;
    assert!(other.problem(422).contains("Idempotency-Key"));

    // A key of the sender's own is stronger, and another source is another event.
    let own = binary(&semel, "/fn/counter", "1", "visits").key("own").send().await;
    assert_eq!(own.json()["duplicate"], false);
    let request = semel.post("/fn/counter", "visits").header("ce-specversion", "1.0").header("ce-id", "1");
    let elsewhere = request.header("ce-source", "/shop2").header("ce-type", "shop.order").send().await;
    assert_eq!(elsewhere.json()["duplicate"], false);
    let long = binary(&semel, "/fn/counter", &"%C3%BC".repeat(2000), "visits").send().await;
    assert_eq!(long.json()["duplicate"], false);
    assert_eq!(semel.in_file::<i64>("SELECT COUNT(*) FROM semel_messages").await, 5);

    // Routes of manifests take them, too.
    let routed = binary(&semel, "/count/routed", "9", "").wait(30).send().await;
    assert_eq!(routed.ok(), json!({ "counter": "routed", "count": 1 }));
}

#[tokio::test]
async fn what_is_no_event_is_refused_and_leaves_no_row() {
    let semel = Semel::start(&["receipts"]).await;
    let with = |name: &str, value: Value| {
        let mut event = event("1");
        event[name] = value;
        event
    };
    for (event, clue) in [
        (with("specversion", json!("0.3")), "specversion"),
        (with("id", json!("")), "id is missing or empty"),
        (with("source", Value::Null), "source is missing"),
        (with("type", json!({})), "type must be text"),
        (with("time", json!("yesterday")), "time"),
        (with("Upper", json!("x")), "lower-case"),
        (with("with-dash", json!("x")), "lower-case"),
        (with("subject", json!("a\r\nb")), "control"),
        (with("data_base64", json!("?")), "base64"),
        (with("datacontenttype", json!("a\u{1}")), "datacontenttype"),
        (json!([]), "JSON object"),
        (json!("text"), "JSON object"),
    ] {
        let reason = structured(&semel, &event).await.problem(400);
        assert!(reason.contains(clue), "{event}: {reason}");
    }
    let mut both = with("data", json!(1));
    both["data_base64"] = json!("aGk=");
    assert!(structured(&semel, &both).await.problem(400).contains("both"));
    let mut text = with("data", json!(1));
    text["datacontenttype"] = json!("text/plain");
    assert!(structured(&semel, &text).await.problem(400).contains("must be a text"));

    for (name, value, clue) in [
        ("ce-time", "soon", "time"),
        ("ce-subject", "100%", "percent"),
        ("ce-subject", "%FF", "percent"),
        ("ce-subject", "%00", "control"),
        ("ce-id", "2", "more than once"),
        ("ce-datacontenttype", "text/plain", "Content-Type"),
    ] {
        let reason = binary(&semel, "/fn/receipts", "1", "x").header(name, value).send().await.problem(400);
        assert!(reason.contains(clue), "{name}: {reason}");
    }
    let alone = semel.post("/fn/receipts", "x").header("ce-id", "1").send().await;
    assert!(alone.problem(400).contains("specversion is missing"));
    for batch in ["application/cloudevents-batch+json", "application/cloudevents+xml"] {
        semel.post("/fn/receipts", "[]").header("content-type", batch).send().await.problem(415);
    }
    assert_eq!(semel.in_file::<i64>("SELECT COUNT(*) FROM semel_messages").await, 0);
}
