//! RabbitMQ and NATS, killed while events go in and messages come out.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use semel::sink::{Outgoing, Sent, Sink};

use crate::brokers::{Broker, Kind, NatsClient, RabbitClient, free_port};
use crate::sinks_brokers::{closed, event, events, never, said};
use crate::sources_brokers::{Running, in_order, with_id};
use crate::{sinks_brokers, sources_brokers};

/// Sends all of them in loads, each again until it is taken, while the server is frozen and killed now and then. Returns how
/// many sends were without an answer.
async fn send_through_kills(
    sink: Arc<dyn Sink>,
    broker: &mut Broker,
    topic: &str,
    count: usize,
    kills: usize,
) -> usize {
    let loads = events(0..count, topic);
    let loads: Vec<Vec<_>> = loads.chunks(20).map(<[_]>::to_vec).collect();
    let sending = tokio::spawn(async move {
        let mut unanswered = 0;
        for mut load in loads {
            while !load.is_empty() {
                let sent = sink.send(&load).await;
                assert_eq!(sent.len(), load.len());
                unanswered += sent.iter().filter(|sent| matches!(sent, Sent::Again { .. })).count();
                let gone = sent.iter().any(|sent| *sent != Sent::Taken);
                load = load
                    .into_iter()
                    .zip(sent)
                    .filter(|(_, sent)| *sent != Sent::Taken)
                    .map(|(event, _)| event)
                    .collect();
                tokio::time::sleep(Duration::from_millis(if gone { 50 } else { 5 })).await;
            }
        }
        unanswered
    });
    for _ in 0..kills {
        tokio::time::sleep(Duration::from_millis(60)).await;
        assert!(!sending.is_finished(), "nothing was under way");
        broker.freeze(true); // What is sent now is without an answer when it dies.
        tokio::time::sleep(Duration::from_millis(60)).await;
        tokio::task::block_in_place(|| {
            broker.kill();
            broker.restart();
        });
    }
    sending.await.expect("all of them")
}

/// Waits until each of so many was handed over, some of them twice and in the order of their first time.
async fn all_taken(source: Running, count: usize) {
    let ids = async |record: &sources_brokers::Record| {
        record.taken.lock().expect("no panic").iter().map(|one| &one.id).collect::<HashSet<_>>().len() == count
    };
    source.until("all taken", ids).await;
    let taken = source.stop().await;
    assert!(taken.len() > count, "nothing was delivered twice");
    in_order(&taken, count);
}

async fn until_offered(source: &Running) {
    source.until("offered", async |record| *record.offered.lock().expect("no panic") > 0).await;
}

#[track_caller]
fn each(ids: &[String], count: usize) {
    let distinct: HashSet<_> = ids.iter().collect();
    assert_eq!(distinct.len(), count, "{} arrived", ids.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_rabbitmq_loses_nothing() {
    let (port, encrypted) = (free_port(), free_port());
    let url = format!("amqp://semel:semel@127.0.0.1:{port}");
    let settings = "topics = [\"kills\", \"sizes\"]\ndeclare = true";
    let sink: Arc<dyn Sink> = Arc::new(sinks_brokers::rabbitmq(&url, settings));
    closed(&said(sink.as_ref(), event("early", "kills")).await, "cannot connect to amqp://127.0.0.1");

    let listener = format!("listeners.ssl.1=127.0.0.1:{encrypted}");
    let tls = ["ssl_options.certfile=server.crt", "ssl_options.keyfile=server.key"];
    let settings = [listener.as_str(), tls[0], tls[1], "max_message_size=20000"];
    let mut broker = Broker::start(Kind::RabbitMq, port, &settings);
    what_is_too_large_never_goes(sink.as_ref(), &broker).await;
    encrypts(&broker, encrypted).await;

    let source = sources_brokers::rabbitmq(&broker, "queue = \"cut\"\ndeclare = true");
    let source = Running::start(source, false);
    source.receives().await;
    let client = RabbitClient::new(&broker).await;
    for number in 0..400 {
        client.publish("cut", b"x", with_id(number)).await;
    }
    until_offered(&source).await;
    let unanswered = send_through_kills(sink, &mut broker, "kills", 2_000, 1).await;
    assert!(unanswered > 0, "no send was cut off");
    source.record.gate.send_replace(true); // What it had is durable here, and cannot be acknowledged any more.
    all_taken(source, 400).await;
    let client = RabbitClient::new(&broker).await;
    assert_eq!(client.count("cut").await, 0);
    let got: Vec<_> = client.drain("kills").await.into_iter().map(id).collect();
    each(&got, 2_001);
}

async fn what_is_too_large_never_goes(sink: &dyn Sink, broker: &Broker) {
    let sized = |id: &str, size: usize| Outgoing { body: vec![b'x'; size], ..event(id, "sizes") };
    let all = [sized("a", 10), sized("b", 30_000), sized("c", 10), sized("d", 300_000), sized("e", 10)];
    let sent = sink.send(&all).await;
    assert_eq!([&sent[0], &sent[2], &sent[4]], [&Sent::Taken; 3]);
    never(&sent[1], "larger than configured max size");
    never(&sent[3], "larger than configured max size");
    let ids: HashSet<_> = RabbitClient::new(broker).await.drain("sizes").await.into_iter().map(id).collect();
    assert_eq!(ids, ["a", "c", "e"].map(String::from).into());
}

async fn encrypts(broker: &Broker, port: u16) {
    let url = format!("amqps://semel:semel@127.0.0.1:{port}");
    let believes = format!("topics = [\"t\"]\nca_file = \"{}\"", broker.certificate().display());
    let believes = sinks_brokers::rabbitmq(&url, &believes);
    assert_eq!(said(&believes, event("encrypted", "kills")).await, Sent::Taken);
    let doubts = sinks_brokers::rabbitmq(&url, "topics = [\"t\"]");
    closed(&said(&doubts, event("one", "kills")).await, "certificate");
}

fn id(delivery: lapin::message::Delivery) -> String {
    delivery.properties.message_id().as_ref().expect("an id").to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_nats_loses_nothing_and_keeps_each_once() {
    let port = free_port();
    let url = format!("tls://semel:semel@127.0.0.1:{port}");
    let early = sinks_brokers::nats(&url, "topics = [\"kills\"]");
    closed(&said(&early, event("early", "kills")).await, "cannot connect to tls://127.0.0.1");

    let mut broker = Broker::start(Kind::Nats, port, &["tls={cert_file: server.crt, key_file: server.key}"]);
    closed(&said(&early, event("early", "kills")).await, "certificate");
    let ca = format!("ca_file = \"{}\"", broker.certificate().display());
    let sink = sinks_brokers::nats(&url, &format!("topics = [\"kills\"]\ndeclare = \"kills\"\n{ca}"));
    let settings = format!("stream = \"cut\"\nconsumer = \"semel\"\ndeclare = true\nsubjects = [\"cut\"]\n{ca}");
    let source = Running::start(sources_brokers::nats(&broker, &settings), false);
    source.receives().await;
    let options = async_nats::ConnectOptions::new().add_root_certificates(broker.certificate());
    let publish = async |client: &NatsClient, numbers: std::ops::Range<usize>| {
        for number in numbers {
            client.publish("cut", b"x", &[("Nats-Msg-Id", &format!("id-{number:04}"))]).await;
        }
    };
    let client = NatsClient::with(&broker, options).await;
    publish(&client, 0..400).await;
    until_offered(&source).await;
    let certificate = broker.certificate();
    let unanswered = send_through_kills(Arc::new(sink), &mut broker, "kills", 2_000, 5).await;
    assert!(unanswered > 0, "no send was cut off");
    source.record.gate.send_replace(true); // What it had is durable here, and cannot be acknowledged any more.
    let options = async_nats::ConnectOptions::new().add_root_certificates(certificate);
    let client = NatsClient::with(&broker, options).await;
    publish(&client, 400..450).await;
    all_taken(source, 450).await;
    client.rid_of_all("cut", "semel").await;

    let id = |message: &async_nats::Message| {
        message.headers.as_ref().and_then(|headers| headers.get("Nats-Msg-Id")).expect("an id").to_string()
    };
    let got: Vec<_> = client.all("kills").await.iter().map(id).collect();
    assert_eq!(got.len(), 2_000);
    each(&got, 2_000);
}
