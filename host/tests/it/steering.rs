//! `/v1`: lists, filters and pages, and the token that stands before them.

use serde_json::{Value, json};

use crate::harness::{On, Semel, functions, on_every_store};

on_every_store!(messages_are_listed_newest_first_and_by_page, documents_have_the_fields_that_were_promised);

/// The fields that scripts rely on.
pub(crate) const MESSAGE: [&str; 15] = [
    "id",
    "function",
    "version",
    "contract",
    "label",
    "state",
    "attempt",
    "max_attempts",
    "group",
    "priority",
    "created_at",
    "available_at",
    "completed_at",
    "lease_until",
    "last_error",
];

async fn messages_are_listed_newest_first_and_by_page(on: On) {
    let semel = Semel::start_on(on, &["counter", "misbehave"]).await;
    let mut ids = Vec::new();
    for n in 0..5 {
        let request =
            semel.post("/fn/counter", format!("{n}")).header("semel-group", "g").header("semel-priority", "7");
        ids.push(request.wait(30).send().await.id());
    }
    let dead = semel.call("misbehave", r#"{"do": "reject"}"#).await.id();
    let later = semel.post("/fn/counter", "later").header("semel-delay", "1h").send().await.id();
    ids.reverse();

    let list = async |query: &str| {
        let page = semel.get(&format!("/v1/messages?{query}")).await.ok();
        let messages = page["messages"].as_array().expect("messages").clone();
        let ids: Vec<Value> = messages.iter().map(|message| message["id"].clone()).collect();
        (ids, page["next"].clone())
    };
    assert_eq!(list("function=counter&state=completed").await.0, json!(ids).as_array().expect("ids")[..]);
    assert_eq!(list("state=dead").await.0, [json!(dead)]);
    assert_eq!(list("state=available").await.0, [json!(later)]);
    assert_eq!(list("function=nobody").await.0, [] as [Value; 0]);
    let (mut paged, mut next) = list("function=counter&limit=2").await;
    while let Some(after) = next.as_str() {
        let (page, further) = list(&format!("function=counter&limit=2&after={after}")).await;
        paged.extend(page);
        next = further;
    }
    let whole: Vec<Value> = [later].into_iter().chain(ids).map(Value::from).collect();
    assert_eq!(paged, whole);
    for wrong in ["state=lost", "limit=many", "after=x", "functions=counter", "limit=-1"] {
        semel.get(&format!("/v1/messages?{wrong}")).await.problem(400);
    }
}

async fn documents_have_the_fields_that_were_promised(on: On) {
    let semel = Semel::start_on(on, &["counter"]).await;
    let request = semel.post("/fn/counter", "visits").header("semel-group", "g").header("semel-priority", "-3");
    let id = request.wait(30).send().await.id();
    let message = semel.message(&id).await;
    for field in MESSAGE.iter().chain(&["response"]) {
        assert!(message.get(*field).is_some(), "{field} is missing in {message}");
    }
    assert_eq!(message["function"], "counter");
    assert_eq!(message["contract"], "finish-once");
    assert_eq!(message["label"], "transactional");
    assert_eq!((&message["group"], &message["priority"]), (&json!("g"), &json!(-3)));
    assert_eq!((&message["attempt"], &message["max_attempts"]), (&json!(1), &json!(5)));
    assert_eq!((&message["lease_until"], &message["last_error"]), (&Value::Null, &Value::Null));
    let trace = semel.trace(&id).await;
    assert_eq!(trace["message"], message);
    assert_eq!(trace["guarantees"][0]["happens"], "exactly 1 once the message is completed; 0 before");
    let function = semel.get("/v1/functions/counter").await.ok();
    assert_eq!(function["routes"], json!([{ "path": "/count/{counter}", "methods": ["GET", "POST"] }]));
    let transaction = json!({ "name": "semel:function/transaction@0.1.0", "class": "transactional" });
    assert!(function["imports"].as_array().expect("imports").contains(&transaction), "{function}");
    for unknown in ["/v1/messages/nothing", "/v1/messages/nothing/trace", "/v1/functions/nobody"] {
        semel.get(unknown).await.problem(404);
    }
    assert_eq!((semel.get("/healthz").await.status, semel.get("/readyz").await.status), (200, 200));
}

/// The token keeps `/v1` shut. What senders and probes need is open: they have no token.
#[tokio::test]
async fn with_a_token_steering_asks_for_it_and_sending_does_not() {
    let folder = tempfile::tempdir().expect("a folder");
    let token = "0123456789abcdef-token";
    let file = folder.path().join("token");
    std::fs::write(&file, format!("{token}\n")).expect("a file");
    let functions = functions().display().to_string();
    let variables = [("SEMEL_TOKEN_FILE", file.to_str().expect("a path")), ("SEMEL_FUNCTIONS", &functions)];
    let semel = Semel::start_with(&variables, &[]).await;
    let sent = semel.call("counter", "visits").await;
    assert_eq!(sent.ok()["count"], 1);
    assert_eq!(semel.get("/count/visits").await.status, 202);
    for path in ["/healthz", "/readyz", "/openapi.json"] {
        assert_eq!(semel.get(path).await.status, 200, "{path}");
    }
    let listings = ["/v1/functions", "/v1/messages", "/v1/counts", "/v1/health", "/metrics"];
    for path in listings.into_iter().chain([&*format!("/v1/messages/{}", sent.id())]) {
        let refused = semel.get(path).await;
        assert!(refused.problem(401).contains("SEMEL_TOKEN"), "{path}");
        assert_eq!(refused.header("www-authenticate"), "Bearer");
        let given = |value: &str| semel.request(reqwest::Method::GET, path).header("authorization", value).send();
        for wrong in ["Bearer 0123456789abcdef-toke", "Bearer 0123456789abcdef-tokem", "Bearer ", "Basic x", token] {
            given(wrong).await.problem(401);
        }
        assert_eq!(given(&format!("Bearer {token}")).await.status, 200, "{path}");
    }
    semel.try_deploy(crate::harness::built("misbehave").named("mine")).await.problem(401);
    assert!(!semel.log().contains(token), "the token is in the log");

    let listing = semel.cli(&["functions"]).await;
    assert!(listing.refusal().contains("SEMEL_TOKEN"), "{listing:?}");
    let url = semel.url();
    let variables = [("SEMEL_SERVER", url.as_str()), ("SEMEL_TOKEN", token)];
    let listing = crate::harness::run(folder.path(), &["functions"], &variables, "").await;
    assert!(listing.ok().contains("counter"), "{listing:?}");
}
