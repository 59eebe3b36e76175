//! The outbox pattern, whole but for the broker: a customer and its event in one commit, and a receiver that may get it twice.

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::deferred::{OK, keys, mailer};
use crate::harness::{Answer, On, Semel, Start, on_every_store, until};
use crate::outside::{Server, Then};

on_every_store!(
    a_customer_is_a_row_and_an_event_in_one_commit,
    what_is_no_customer_leaves_no_row_and_no_event,
    of_many_with_one_email_one_is_a_customer,
    an_event_that_comes_twice_is_handled_once,
    a_customer_is_welcomed_by_a_mail_where_there_is_a_service
);

/// As the essay sends it.
const TEST: &str = r#"{"email":"test@example.com","name":"TESTTTTTT"}"#;

async fn create(semel: &Semel, body: impl Into<String>) -> Answer {
    semel.post("/customers", body.into()).header("content-type", "application/json").wait(60).send().await
}

/// The messages of the receiver, the oldest first, once all of them are settled.
async fn received(semel: &Semel, count: usize) -> Vec<String> {
    until(&format!("{count} events to be handled"), async || {
        let messages = semel.get("/v1/messages?function=mailer").await.ok()["messages"].take();
        let messages = messages.as_array().expect("messages");
        let done = messages.len() == count && messages.iter().all(|message| message["state"] == "completed");
        let ids = messages.iter().rev().map(|message| message["id"].as_str().expect("an id").to_owned());
        done.then(|| ids.collect())
    })
    .await
}

/// What the receiver said to a message.
async fn said(semel: &Semel, id: &str) -> String {
    let trace = semel.trace(id).await;
    let attempts = trace["attempts"].as_array().expect("attempts");
    let logs = attempts[attempts.len() - 1]["logs"].as_array().expect("lines").clone();
    logs.iter().map(|line| line["message"].as_str().expect("text").to_owned()).collect()
}

async fn a_customer_is_a_row_and_an_event_in_one_commit(on: On) {
    let variables = [("SEMEL_LOG", "info,guest=debug")];
    let start = Start { on, variables: &variables, ..Start::default() };
    let semel = Semel::start_as(start, &["customers", "mailer"]).await;
    let answer = create(&semel, TEST).await;
    let customer = answer.ok();
    let (id, created_at) = (customer["id"].as_str().expect("an id"), customer["CreatedAt"].as_str().expect("a time"));
    let expected = format!(
        r#"{{"id":"{id}","name":"TESTTTTTT","email":"test@example.com","CreatedAt":"{created_at}","UpdatedAt":"0001-01-01T00:00:00Z"}}"#
    );
    assert_eq!(answer.text(), expected, "in the order of the essay");
    assert_eq!(uuid::Uuid::parse_str(id).expect("a UUID").get_version_num(), 4);
    let accepted: semel::clock::Timestamp =
        serde_json::from_value(semel.message(&answer.id()).await["created_at"].take()).expect("a time");
    assert_eq!(accepted, serde_json::from_value(json!(created_at)).expect("a time"), "the time of acceptance");
    let rows = semel.sql("SELECT id, email, name, created_at FROM customers").await;
    assert_eq!(rows, json!([[id, "test@example.com", "TESTTTTTT", created_at]]));

    let events = received(&semel, 1).await;
    let line = format!("Handling [CustomerCreated] - Payload: '{expected}'");
    assert_eq!(said(&semel, &events[0]).await, line);
    let logged =
        until("the line", async || semel.log().lines().find(|l| l.contains("Handling")).map(str::to_owned)).await;
    assert!(logged.contains(&line) && logged.contains("function=\"mailer\""), "{logged}");

    // Without waiting, as the essay does.
    let body = TEST.replace("test@", "another@");
    let answer = semel.post("/customers", body).header("content-type", "application/json").send().await;
    assert_eq!(answer.status, 202, "{}", answer.text());
    assert_eq!(semel.until_settled(&answer.id()).await["state"], "completed");
    received(&semel, 2).await;
    assert_eq!(semel.sql("SELECT count(*), count(DISTINCT event_id) FROM handled").await, json!([[2, 2]]));
}

async fn what_is_no_customer_leaves_no_row_and_no_event(on: On) {
    let semel = Semel::start_on(on, &["customers", "mailer"]).await;
    assert_eq!(create(&semel, TEST).await.status, 200);
    let long = format!(r#"{{"email":"{}@example.com","name":"x"}}"#, "x".repeat(250));
    for (body, clue) in [
        ("", "the body must be"),
        ("{}", "email"),
        (r#"{"email":"a@b.example"}"#, "name"),
        (r#"{"email":"nobody","name":"x"}"#, "email must be an address"),
        (r#"{"email":"@example.com","name":"x"}"#, "email must be an address"),
        (r#"{"email":"a@","name":"x"}"#, "email must be an address"),
        (r#"{"email":"a b@example.com","name":"x"}"#, "email must be an address"),
        (r#"{"email":"a@b.example","name":"  "}"#, "name must have"),
        (r#"{"email":"a@b.example","name":"a\u0000b"}"#, "name must have"),
        (r#"{"email":1,"name":"x"}"#, "the body must be"),
        (&long, "at most 254"),
        (TEST, "there is a customer with the email test@example.com already"),
    ] {
        let reason = create(&semel, body).await.problem(422);
        assert!(reason.contains(clue), "`{clue}` is not in: {reason}");
    }
    assert_eq!(semel.sql("SELECT count(*) FROM customers").await, json!([[1]]));
    assert_eq!(received(&semel, 1).await.len(), 1);
}

async fn of_many_with_one_email_one_is_a_customer(on: On) {
    let semel = Semel::start_on(on, &["customers", "mailer"]).await;
    let answers = join_all((0..8).map(|_| create(&semel, TEST))).await;
    let mut statuses: Vec<u16> = answers.iter().map(|answer| answer.status).collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [[200].as_slice(), &[422; 7]].concat());
    received(&semel, 1).await;
}

/// A broker that delivers an event twice, after its id was forgotten in the inbox, is played by changing what is in the queue.
async fn an_event_that_comes_twice_is_handled_once(on: On) {
    let semel = Semel::start_on(on, &["customers", "mailer"]).await;
    semel.post("/v1/functions/mailer/pause", "").send().await.ok();
    for email in ["a@example.com", "b@example.com"] {
        create(&semel, TEST.replace("test@example.com", email)).await.ok();
    }
    let twice = r#"[["event-type","CustomerCreated"],["semel-source-id","an event"]]"#;
    let changed =
        semel.change(&format!("UPDATE semel_messages SET headers = '{twice}' WHERE function = 'mailer'")).await;
    assert_eq!(changed, 2);
    semel.post("/v1/functions/mailer/resume", "").send().await.ok();
    let events = received(&semel, 2).await;
    let mut said = [said(&semel, &events[0]).await, said(&semel, &events[1]).await];
    said.sort();
    assert_eq!(said[0], "Handled before: [CustomerCreated] an event");
    assert!(said[1].starts_with("Handling [CustomerCreated] - Payload: '{"), "{}", said[1]);
    assert_eq!(semel.sql("SELECT event_id, event_type FROM handled").await, json!([["an event", "CustomerCreated"]]));
}

async fn a_customer_is_welcomed_by_a_mail_where_there_is_a_service(on: On) {
    let (semel, server) = (Semel::start_on(on, &["customers"]).await, Server::start(Then::Say(OK)).await);
    let service = format!("INSERT INTO welcome_service (url) VALUES ('http://{}/send')", server.address);
    semel.deploy(mailer(&server).migration("0003_service.sql", &service)).await;
    create(&semel, TEST).await.ok();
    received(&semel, 1).await;
    until("the mail", async || (!keys(&server).is_empty()).then_some(())).await;
    let request = server.requests.lock().expect("a lock")[0].clone();
    assert!(request.ends_with("\r\n\r\ntest@example.com"), "{request}");
    let sent: Vec<Value> = semel.get("/v1/outbox").await.ok()["requests"].as_array().expect("requests").clone();
    assert_eq!((sent.len(), keys(&server).len()), (1, 1));
}
