//! The way in: what a broker delivers, however often, is in the queue once; and what cannot be handed over is a dead letter.

use lapin::BasicProperties;
use serde_json::{Value, json};

use crate::brokers::{Broker, Kind, RabbitClient, unique};
use crate::harness::{Function, On, Semel, built, on_every_store, until};
use crate::sinks::configure;

on_every_store!(
    what_is_delivered_twice_is_handled_once,
    what_cannot_be_handed_over_is_a_dead_letter_with_the_reason,
    what_a_backlog_has_no_room_for_waits_at_the_broker
);

const TOO_LARGE: usize = 2000;

/// A host that receives from a queue of its own, for `receipts`.
struct Line {
    semel: Semel,
    client: RabbitClient,
    queue: String,
}

impl Line {
    async fn start(on: On, receiver: Function) -> Self {
        let broker = Broker::shared(Kind::RabbitMq);
        let (client, queue) = (RabbitClient::new(broker).await, unique("inbox"));
        client.queue(&queue, &[]).await;
        let mut semel = Semel::start_on(on, &["sqlshell"]).await;
        semel.deploy(receiver).await;
        configure(&mut semel, &configuration(broker, &queue, 1)).await;
        Self { semel, client, queue }
    }

    async fn deliver(&self, id: &str, body: &str) {
        let properties = BasicProperties::default().with_message_id(id.into());
        self.client.publish(&self.queue, body.as_bytes(), properties).await;
    }

    /// The bodies that were handled, once there are so many.
    async fn handled(&self, count: usize) -> Value {
        until(&format!("{count} rows"), async || {
            let rows = self.semel.sql("SELECT body FROM receipts ORDER BY body").await;
            (rows.as_array().expect("rows").len() >= count).then_some(rows)
        })
        .await
    }

    /// The dead letters, the oldest first, once there are so many.
    async fn letters(&self, count: usize) -> Vec<Value> {
        until(&format!("{count} dead letters"), async || {
            let answer = self.semel.get("/v1/messages?function=source:in&state=dead").await.ok();
            let mut letters = answer["messages"].as_array().expect("messages").clone();
            letters.reverse();
            (letters.len() >= count).then_some(letters)
        })
        .await
    }
}

fn configuration(broker: &Broker, queue: &str, body: u32) -> String {
    let url = broker.url();
    format!(
        "[sources.in]\nkind = \"rabbitmq\"\ntopic = \"receipts\"\nurl = \"{url}\"\nqueue = \"{queue}\"\n\n\
         [limits]\nbody = \"{body}KiB\"\n"
    )
}

async fn what_is_delivered_twice_is_handled_once(on: On) {
    let mut line = Line::start(on, built("receipts")).await;
    for body in ["a", "b", "a", "a"] {
        line.deliver(body, body).await;
    }
    assert_eq!(line.handled(2).await, json!([["a"], ["b"]]));
    line.semel.kill().await;
    line.deliver("b", "b").await;
    line.deliver("c", "c").await;
    line.semel.restart().await;
    assert_eq!(line.handled(3).await, json!([["a"], ["b"], ["c"]]), "the inbox outlives its host");
    assert!(line.letters(0).await.is_empty());
}

async fn what_cannot_be_handed_over_is_a_dead_letter_with_the_reason(on: On) {
    let mut line = Line::start(on, built("receipts")).await;
    let large = "x".repeat(TOO_LARGE);
    line.deliver("large", &large).await;
    line.deliver("a", "one").await;
    line.deliver("a", "another").await;
    line.deliver("b", "after them").await;
    assert_eq!(line.handled(2).await, json!([["after them"], ["one"]]), "it holds up nobody");
    let letters = line.letters(2).await;
    let why = |letter: &Value| letter["last_error"]["message"].as_str().unwrap_or_default().to_owned();
    assert!(why(&letters[0]).contains("2000 bytes; [limits] body allows 1024"), "{letters:?}");
    assert!(why(&letters[1]).contains("its id a was used for another message"), "{letters:?}");

    // The same again is the same letter; and a person may hand it over once what was wrong with it is mended.
    line.deliver("large", &large).await;
    line.deliver("c", "last").await;
    line.handled(3).await;
    assert_eq!(line.letters(2).await.len(), 2);
    let id = letters[0]["id"].as_str().expect("an id").to_owned();
    line.semel.post(&format!("/v1/messages/{id}/redrive"), "").send().await.ok();
    assert!(why(&line.letters(2).await[0]).contains("2000 bytes"), "it is no smaller yet");
    configure(&mut line.semel, &configuration(Broker::shared(Kind::RabbitMq), &line.queue, 4)).await;
    line.semel.post(&format!("/v1/messages/{id}/redrive"), "").send().await.ok();
    assert!(line.handled(4).await.to_string().contains(&large));
}

async fn what_a_backlog_has_no_room_for_waits_at_the_broker(on: On) {
    let receiver =
        built("receipts").with("contract = \"finish-once\"", "contract = \"finish-once\"\n\n[flow]\nbacklog = 2");
    let line = Line::start(on, receiver).await;
    line.semel.post("/v1/functions/receipts/pause", "").send().await.ok();
    for body in ["a", "b", "c", "d"] {
        line.deliver(body, body).await;
    }
    until("a full backlog", async || {
        let sources = line.semel.get("/v1/outbox").await.ok()["sources"].take();
        sources.to_string().contains("is full").then_some(())
    })
    .await;
    assert_eq!(line.semel.count("receipts", "available").await, 2);
    line.semel.post("/v1/functions/receipts/resume", "").send().await.ok();
    assert_eq!(line.handled(4).await, json!([["a"], ["b"], ["c"], ["d"]]));
    assert_eq!(line.client.count(&line.queue).await, 0);
}
