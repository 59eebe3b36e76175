//! The sinks of RabbitMQ and NATS, with real servers: where each part of an event goes, and what becomes of it when things
//! go wrong.

use std::collections::BTreeMap;

use lapin::types::AMQPValue;
use semel::clock::Timestamp;
use semel::sink::{Nats, NatsSettings, Outgoing, RabbitMq, RabbitMqSettings, Sent, Sink};

use crate::brokers::{Broker, Kind, NatsClient, RabbitClient, free_port, unique};

pub(crate) fn rabbitmq(url: &str, settings: &str) -> RabbitMq {
    let settings = format!("url = \"{url}\"\n{settings}");
    RabbitMq::new(&toml::from_str::<RabbitMqSettings>(&settings).expect("settings")).expect("a sink")
}

pub(crate) fn nats(url: &str, settings: &str) -> Nats {
    let settings = format!("url = \"{url}\"\n{settings}");
    Nats::new(&toml::from_str::<NatsSettings>(&settings).expect("settings")).expect("a sink")
}

pub(crate) fn event(id: &str, topic: &str) -> Outgoing {
    Outgoing {
        id: id.into(),
        topic: topic.into(),
        group: Some("customer-7".into()),
        time: Timestamp(1_700_000_000_123_456),
        content_type: Some("application/json".into()),
        headers: vec![("x-shop".into(), "north".into()), ("X-Many".into(), "1".into()), ("x-many".into(), "2".into())],
        body: br#"{"name":"Ada"}"#.to_vec(),
    }
}

pub(crate) fn events(ids: impl IntoIterator<Item = usize>, topic: &str) -> Vec<Outgoing> {
    ids.into_iter().map(|number| event(&format!("id-{number:04}"), topic)).collect()
}

/// What a sink says of one event that it did not take.
pub(crate) async fn said(sink: &dyn Sink, event: Outgoing) -> Sent {
    let mut sent = sink.send(&[event]).await;
    assert_eq!(sent.len(), 1);
    sent.remove(0)
}

#[track_caller]
pub(crate) fn closed(sent: &Sent, because: &str) {
    assert!(matches!(sent, Sent::Closed(reason) if reason.contains(because) && !reason.contains("secret")), "{sent:?}");
}

#[track_caller]
fn again(sent: &Sent, because: &str) {
    assert!(matches!(sent, Sent::Again { reason, .. } if reason.contains(because)), "{sent:?}");
}

#[track_caller]
pub(crate) fn never(sent: &Sent, because: &str) {
    assert!(matches!(sent, Sent::Never(reason) if reason.contains(because)), "{sent:?}");
}

#[tokio::test]
async fn every_part_of_an_event_has_its_place_in_rabbitmq() {
    let broker = Broker::shared(Kind::RabbitMq);
    let (client, queue) = (RabbitClient::new(broker).await, unique("customers"));
    let sink = rabbitmq(&broker.url(), &format!("topics = [\"{queue}\"]\ndeclare = true"));
    let bare = Outgoing { group: None, content_type: None, headers: Vec::new(), ..event("two", &queue) };
    assert_eq!(sink.send(&[event("one", &queue), bare]).await, [Sent::Taken, Sent::Taken]);
    let got = client.drain(&queue).await;
    let [one, two] = &got[..] else { panic!("{got:?}") };
    let text = |text: &str| Some(text.into());
    assert_eq!((one.exchange.as_str(), one.routing_key.as_str()), ("", queue.as_str()));
    assert_eq!(one.data, br#"{"name":"Ada"}"#);
    assert_eq!(one.properties.message_id(), &text("one"));
    assert_eq!(one.properties.kind(), &text(&queue));
    assert_eq!(one.properties.content_type(), &text("application/json"));
    assert_eq!(one.properties.app_id(), &text("semel"));
    assert_eq!(one.properties.delivery_mode(), &Some(2));
    assert_eq!(one.properties.timestamp(), &Some(1_700_000_000));
    let headers = one.properties.headers().as_ref().expect("headers").inner().iter();
    let headers: BTreeMap<_, _> = headers.map(|(name, value)| (name.as_str(), value.clone())).collect();
    let value = |text: &str| AMQPValue::LongString(text.into());
    let expected = [
        ("semel-group", value("customer-7")),
        ("semel-time", value("2023-11-14T22:13:20.123456Z")),
        ("x-many", value("1, 2")),
        ("x-shop", value("north")),
    ];
    assert_eq!(headers, BTreeMap::from(expected));
    assert_eq!((two.properties.message_id(), two.properties.content_type()), (&text("two"), &None));
}

#[tokio::test]
async fn every_part_of_an_event_has_its_place_in_nats_and_what_is_sent_twice_is_there_once() {
    let broker = Broker::shared(Kind::Nats);
    let (client, name) = (NatsClient::new(broker).await, unique("customers"));
    let settings = format!("topics = [\"{name}\"]\nsubject = \"shop.{{topic}}\"\ndeclare = \"{name}\"");
    let sink = nats(&broker.url(), &settings);
    let mut order = event("one", &name);
    order.headers.push(("Nats-Rollup".into(), "all".into()));
    for _ in 0..2 {
        assert_eq!(sink.send(&[event("zero", &name), order.clone()]).await, [Sent::Taken, Sent::Taken]);
    }
    let got = client.all(&name).await;
    let [_, one] = &got[..] else { panic!("{got:?}") };
    assert_eq!((one.subject.as_str(), &one.payload[..]), (format!("shop.{name}").as_str(), &br#"{"name":"Ada"}"#[..]));
    let headers = one.headers.as_ref().expect("headers");
    let get = |name: &str| headers.get_all(name).map(|value| value.as_str().to_owned()).collect::<Vec<_>>();
    assert_eq!(get("Nats-Msg-Id"), ["one"]);
    assert_eq!(get("Semel-Topic"), std::slice::from_ref(&name));
    assert_eq!(get("Semel-Group"), ["customer-7"]);
    assert_eq!(get("Semel-Time"), ["2023-11-14T22:13:20.123456Z"]);
    assert_eq!(get("Content-Type"), ["application/json"]);
    assert_eq!(get("x-shop"), ["north"]);
    assert_eq!([get("X-Many"), get("x-many")], [["1"], ["2"]]);
    assert_eq!(get("Nats-Rollup"), [""; 0], "an order to the server is none of the publisher's");
}

#[tokio::test]
async fn who_is_not_let_in_is_told_so_without_the_password() {
    for kind in [Kind::RabbitMq, Kind::Nats] {
        let broker = Broker::shared(kind);
        let url = broker.url_as("semel", "secret", broker.port());
        let sink: Box<dyn Sink> = match kind {
            Kind::RabbitMq => Box::new(rabbitmq(&url, "topics = [\"t\"]")),
            Kind::Nats => Box::new(nats(&url, "topics = [\"t\"]")),
        };
        closed(&said(sink.as_ref(), event("one", "t")).await, "does not let the user \"semel\" in");
    }
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("password");
    std::fs::write(&file, "secret\n").expect("a file");
    let broker = Broker::shared(Kind::Nats);
    let (client, name) = (NatsClient::new(broker).await, unique("rotated"));
    client.stream(&name, &[&name]).await;
    let url = format!("nats://semel@127.0.0.1:{}", broker.port());
    let sink = nats(&url, &format!("topics = [\"t\"]\npassword_file = \"{}\"", file.display()));
    closed(&said(&sink, event("one", &name)).await, "does not let the user");
    std::fs::write(&file, "semel\n").expect("a file");
    assert_eq!(said(&sink, event("one", &name)).await, Sent::Taken, "the file is read again");
}

#[tokio::test]
async fn what_has_no_way_in_rabbitmq_waits_with_the_reason() {
    let broker = Broker::shared(Kind::RabbitMq);
    let client = RabbitClient::new(broker).await;
    let [exchange, queue, other] = ["shop", "bound", "other"].map(unique);
    client.bound(&exchange, "orders.*", &queue).await;
    let settings = format!("topics = [\"t\"]\nexchange = \"{exchange}\"\nrouting_key = \"{{topic}}.new\"");
    let sink = rabbitmq(&broker.url(), &settings);
    let sent = sink.send(&[event("one", "orders"), event("two", "invoices"), event("three", "orders")]).await;
    assert_eq!([&sent[0], &sent[2]], [&Sent::Taken; 2]);
    again(&sent[1], &format!("no queue is bound to the exchange \"{exchange}\" for the routing key \"invoices.new\""));
    assert_eq!(client.drain(&queue).await.len(), 2);

    let nowhere = rabbitmq(&broker.url(), "topics = [\"t\"]");
    again(&said(&nowhere, event("one", &other)).await, "there is no queue");
    let missing = rabbitmq(&broker.url(), "topics = [\"t\"]\nexchange = \"nobody-made-it\"");
    for sent in missing.send(&events(0..3, "t")).await {
        closed(&sent, "nobody-made-it"); // All of them: none is to blame.
    }
    client.queue(&other, &[("x-max-length", AMQPValue::LongInt(5))]).await;
    let declares = rabbitmq(&broker.url(), &format!("topics = [\"{other}\"]\ndeclare = true"));
    closed(&said(&declares, event("one", &other)).await, "is there with other settings");
    let long = "long".repeat(100);
    never(&said(&nowhere, event("one", &long)).await, "RabbitMQ takes 255");
    client.queue(&long[..200], &[]).await;
    assert_eq!(said(&nowhere, event("one", &long[..200])).await, Sent::Taken, "it was the length");
}

#[tokio::test]
async fn what_has_no_way_in_nats_waits_with_the_reason() {
    let broker = Broker::shared(Kind::Nats);
    let (client, [name, other]) = (NatsClient::new(broker).await, ["orders", "other"].map(unique));
    client.stream(&name, &[&name]).await;
    client.stream(&other, &[&other, "elsewhere"]).await;
    let sink = nats(&broker.url(), "topics = [\"t\"]");
    let sent = sink.send(&[event("one", &name), event("two", "nobodys"), event("three", &name)]).await;
    assert_eq!([&sent[0], &sent[2]], [&Sent::Taken; 2]);
    again(&sent[1], "no stream takes the subject \"nobodys\"");
    let declares = nats(&broker.url(), &format!("topics = [\"{other}\"]\ndeclare = \"{other}\""));
    closed(&said(&declares, event("one", &other)).await, "is there with other settings");
    for wrong in ["", "a..b", "all.>", "a b", "a.*"] {
        never(&said(&sink, event("one", wrong)).await, "is no subject of NATS");
    }
    for (header, value) in [("a b", "1"), ("a", "1\r\nNats-Rollup: all")] {
        let odd = Outgoing { headers: vec![(header.into(), value.into())], ..event("odd", &name) };
        never(&said(&sink, odd).await, "cannot stand in a message of NATS");
    }
    assert_eq!(client.all(&name).await.len(), 2);
}

#[tokio::test]
async fn what_is_too_large_for_nats_never_goes_and_the_others_do() {
    let broker = Broker::start(Kind::Nats, free_port(), &["max_payload=20000"]);
    let client = NatsClient::new(&broker).await;
    let config = async_nats::jetstream::stream::Config {
        name: "small".into(),
        subjects: vec!["small".into()],
        max_message_size: 10_000,
        ..Default::default()
    };
    client.jetstream.create_stream(config).await.expect("a stream");
    let sink = nats(&broker.url(), "topics = [\"t\"]");
    let sized = |id: &str, size: usize| Outgoing { body: vec![b'x'; size], ..event(id, "small") };
    let sent =
        sink.send(&[sized("a", 10), sized("b", 15_000), sized("c", 10), sized("d", 30_000), sized("e", 10)]).await;
    assert_eq!([&sent[0], &sent[2], &sent[4]], [&Sent::Taken; 3]);
    never(&sent[1], "message size exceeds maximum allowed");
    never(&sent[3], "max");
    assert_eq!(client.all("small").await.len(), 3);
}
