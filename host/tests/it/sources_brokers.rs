//! The sources of RabbitMQ and NATS, with real servers, up to what they hand over.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_nats::jetstream::consumer::{AckPolicy, pull};
use async_trait::async_trait;
use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable};
use semel::source::{Delivery, Intake, Nats, NatsSettings, RabbitMq, RabbitMqSettings, Source};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::brokers::{Broker, Kind, NatsClient, RabbitClient, unique};

pub(crate) fn rabbitmq(broker: &Broker, settings: &str) -> Arc<dyn Source> {
    let settings = format!("topic = \"t\"\nurl = \"{}\"\n{settings}", broker.url());
    Arc::new(RabbitMq::new(&toml::from_str::<RabbitMqSettings>(&settings).expect("settings")).expect("a source"))
}

pub(crate) fn nats(broker: &Broker, settings: &str) -> Arc<dyn Source> {
    let settings = format!("topic = \"t\"\nurl = \"{}\"\n{settings}", broker.url());
    Arc::new(Nats::new(&toml::from_str::<NatsSettings>(&settings).expect("settings")).expect("a source"))
}

/// Remembers what was handed over; takes it when its gate is open.
pub(crate) struct Record {
    pub(crate) taken: Mutex<Vec<Delivery>>,
    pub(crate) offered: Mutex<usize>,
    stands: Mutex<Option<Option<String>>>,
    /// Whether it takes.
    pub(crate) gate: watch::Sender<bool>,
    stop: watch::Sender<bool>,
}

#[async_trait]
impl Intake for Record {
    async fn take(&self, deliveries: Vec<Delivery>) -> bool {
        *self.offered.lock().expect("no panic") += deliveries.len();
        let (mut gate, mut stop) = (self.gate.subscribe(), self.stop.subscribe());
        tokio::select! {
            open = gate.wait_for(|open| *open) => assert!(open.is_ok()),
            _ = stop.wait_for(|stop| *stop) => return false,
        }
        self.taken.lock().expect("no panic").extend(deliveries);
        true
    }

    fn stands(&self, trouble: Option<String>) {
        *self.stands.lock().expect("no panic") = Some(trouble);
    }
}

/// A source that runs.
pub(crate) struct Running {
    pub(crate) record: Arc<Record>,
    task: JoinHandle<()>,
}

impl Running {
    pub(crate) fn start(source: Arc<dyn Source>, open: bool) -> Self {
        let record = Arc::new(Record {
            taken: Mutex::default(),
            offered: Mutex::default(),
            stands: Mutex::default(),
            gate: watch::Sender::new(open),
            stop: watch::Sender::new(false),
        });
        let (intake, stop) = (Arc::clone(&record), record.stop.subscribe());
        Self { task: tokio::spawn(async move { source.run(intake.as_ref(), stop).await }), record }
    }

    pub(crate) async fn until(&self, what: &str, mut holds: impl AsyncFnMut(&Record) -> bool) {
        let end = Instant::now() + Duration::from_secs(60);
        while !holds(&self.record).await {
            assert!(!self.task.is_finished(), "the source ended");
            let (taken, stands) = (self.record.taken.lock().expect("no panic").len(), &self.record.stands);
            assert!(Instant::now() < end, "not {what}: {taken} taken, {stands:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    pub(crate) async fn taken(&self, count: usize) -> Vec<Delivery> {
        self.until("taken", async |record| record.taken.lock().expect("no panic").len() >= count).await;
        self.record.taken.lock().expect("no panic").clone()
    }

    pub(crate) async fn receives(&self) {
        self.until("receiving", async |record| *record.stands.lock().expect("no panic") == Some(None)).await;
    }

    pub(crate) async fn in_trouble(&self, because: &str) {
        let in_it = async |record: &Record| {
            let stands = record.stands.lock().expect("no panic").clone();
            stands.flatten().is_some_and(|said| said.contains(because))
        };
        self.until(because, in_it).await;
    }

    /// Returns all that was taken.
    pub(crate) async fn stop(self) -> Vec<Delivery> {
        self.record.stop.send_replace(true);
        tokio::time::timeout(Duration::from_secs(20), self.task).await.expect("it ends").expect("it does not panic");
        self.record.taken.lock().expect("no panic").clone()
    }
}

fn header<'a>(delivery: &'a Delivery, name: &str) -> Option<&'a str> {
    delivery.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
}

pub(crate) fn with_id(number: usize) -> BasicProperties {
    BasicProperties::default().with_message_id(format!("id-{number:04}").into())
}

/// Each in its place when it came first.
#[track_caller]
pub(crate) fn in_order(taken: &[Delivery], count: usize) {
    let mut seen = HashSet::new();
    let first: Vec<_> = taken.iter().map(|one| one.id.clone()).filter(|id| seen.insert(id.clone())).collect();
    let expected: Vec<_> = (0..count).map(|number| format!("id-{number:04}")).collect();
    assert_eq!(first, expected);
}

#[tokio::test]
async fn every_part_of_a_rabbitmq_message_comes_in() {
    let broker = Broker::shared(Kind::RabbitMq);
    let (client, queue) = (RabbitClient::new(broker).await, unique("in"));
    let source = Running::start(rabbitmq(broker, &format!("queue = \"{queue}\"")), true);
    source.in_trouble(&format!("there is no queue \"{queue}\"")).await;
    client.queue(&queue, &[]).await;
    source.receives().await;

    let mut table = FieldTable::default();
    let mut inner = FieldTable::default();
    inner.insert("deep".into(), AMQPValue::LongInt(1));
    for (name, value) in [
        ("Semel-Group", AMQPValue::LongString("customer-7".into())),
        ("X-Text", AMQPValue::LongString("Zürich".into())),
        ("x-bytes", AMQPValue::LongString(vec![0xff, 0xfe].into())),
        ("x-number", AMQPValue::LongLongInt(-7)),
        ("x-yes", AMQPValue::Boolean(true)),
        ("x-time", AMQPValue::Timestamp(1_700_000_000)),
        ("x-table", AMQPValue::FieldTable(inner)),
        ("x-list", AMQPValue::FieldArray(vec![AMQPValue::Boolean(false), AMQPValue::Void].into())),
        ("x-nothing", AMQPValue::Void),
        ("rabbitmq-exchange", AMQPValue::LongString("forged".into())),
    ] {
        table.insert(name.into(), value);
    }
    let properties = BasicProperties::default()
        .with_message_id("m-1".into())
        .with_type("CustomerCreated".into())
        .with_content_type("application/json".into())
        .with_timestamp(1_700_000_000)
        .with_headers(table);
    client.publish(&queue, b"{}", properties).await;
    let taken = source.taken(1).await;
    let one = &taken[0];
    assert_eq!((one.id.as_str(), one.group.as_deref()), ("m-1", Some("customer-7")));
    assert_eq!((one.content_type.as_deref(), one.body.as_slice()), (Some("application/json"), &b"{}"[..]));
    for (name, value) in [
        ("x-text", "Zürich"),
        ("x-bytes", "//4="),
        ("x-number", "-7"),
        ("x-yes", "true"),
        ("x-time", "2023-11-14T22:13:20.000000Z"),
        ("x-table", r#"{"deep":1}"#),
        ("x-list", "[false,null]"),
        ("x-nothing", ""),
        ("rabbitmq-exchange", ""),
        ("rabbitmq-routing-key", queue.as_str()),
        ("rabbitmq-type", "CustomerCreated"),
        ("rabbitmq-timestamp", "2023-11-14T22:13:20.000000Z"),
    ] {
        assert_eq!(header(one, name), Some(value), "{name}");
    }
    source.stop().await;
    assert_eq!(client.count(&queue).await, 0, "all was acknowledged");
}

#[tokio::test]
async fn a_rabbitmq_message_without_an_id_is_known_by_its_content_or_not_at_all() {
    let broker = Broker::shared(Kind::RabbitMq);
    let client = RabbitClient::new(broker).await;
    for (setting, distinct) in [("content", 2), ("each", 3)] {
        let queue = unique("without");
        client.queue(&queue, &[]).await;
        for body in [&b"one"[..], b"one", b"two"] {
            client.publish(&queue, body, BasicProperties::default()).await;
        }
        let source = rabbitmq(broker, &format!("queue = \"{queue}\"\nwithout_id = \"{setting}\""));
        let source = Running::start(source, true);
        source.taken(3).await;
        let ids: HashSet<_> = source.stop().await.into_iter().map(|one| one.id).collect();
        assert_eq!(ids.len(), distinct, "{setting}: {ids:?}");
    }
}

#[tokio::test]
async fn what_is_not_taken_goes_back_and_one_receives_at_a_time() {
    let broker = Broker::shared(Kind::RabbitMq);
    let (client, queue) = (RabbitClient::new(broker).await, unique("back"));
    let settings = format!("queue = \"{queue}\"\ndeclare = true\nexchange = \"{queue}\"\nrouting_key = \"a.#\"");
    let first = Running::start(rabbitmq(broker, &settings), false);
    first.receives().await;
    for number in 0..600 {
        client.publish(&queue, b"x", with_id(number)).await;
    }
    first.until("offered", async |record| *record.offered.lock().expect("no panic") > 0).await;
    let second = Running::start(rabbitmq(broker, &settings), true);
    second.in_trouble("another host receives").await;
    assert_eq!(first.stop().await.len(), 0);
    in_order(&second.taken(600).await, 600);
    in_order(&second.stop().await, 600);
    assert_eq!(client.count(&queue).await, 0);
}

#[tokio::test]
async fn a_queue_with_other_settings_is_said_to_be_one() {
    let broker = Broker::shared(Kind::RabbitMq);
    let (client, queue) = (RabbitClient::new(broker).await, unique("other"));
    client.queue(&queue, &[("x-max-length", AMQPValue::LongInt(5))]).await;
    let source = Running::start(rabbitmq(broker, &format!("queue = \"{queue}\"\ndeclare = true")), true);
    source.in_trouble("is there with other settings").await;
    source.stop().await;
    let source = Running::start(rabbitmq(broker, &format!("queue = \"{queue}\"")), true);
    source.receives().await;
    source.stop().await;
}

#[tokio::test]
async fn every_part_of_a_nats_message_comes_in() {
    let broker = Broker::shared(Kind::Nats);
    let (client, name) = (NatsClient::new(broker).await, unique("in"));
    let source = Running::start(nats(broker, &format!("stream = \"{name}\"\nconsumer = \"semel\"")), true);
    source.in_trouble(&format!("cannot use the stream \"{name}\"")).await;
    client.stream(&name, &[&format!("{name}.*")]).await;
    source.in_trouble("cannot use the consumer \"semel\"").await;
    let wrong = pull::Config { durable_name: Some("semel".into()), max_deliver: 3, ..pull::Config::default() };
    client.jetstream.create_consumer_on_stream(wrong, &name).await.expect("a consumer");
    source.in_trouble("would lose messages").await;
    client.jetstream.delete_consumer_from_stream("semel", &name).await.expect("deleted");
    let right =
        pull::Config { durable_name: Some("semel".into()), ack_policy: AckPolicy::Explicit, ..Default::default() };
    client.jetstream.create_consumer_on_stream(right, &name).await.expect("a consumer");
    source.receives().await;

    let subject = format!("{name}.new");
    let headers = [
        ("Nats-Msg-Id", "m-1"),
        ("SEMEL-GROUP", "customer-7"),
        ("Content-Type", "text/plain"),
        ("X-Two", "1"),
        ("X-Two", "2"),
    ];
    client.publish(&subject, b"hello", &headers).await;
    client.publish(&subject, b"anonymous", &[]).await;
    client.publish(&subject, b"anonymous", &[]).await;
    let taken = source.taken(3).await;
    let [one, two, three] = &taken[..] else { panic!("{taken:?}") };
    assert_eq!((one.id.as_str(), one.group.as_deref()), ("m-1", Some("customer-7")));
    assert_eq!((one.content_type.as_deref(), one.body.as_slice()), (Some("text/plain"), &b"hello"[..]));
    assert_eq!(
        (header(one, "nats-subject"), header(one, "nats-stream")),
        (Some(subject.as_str()), Some(name.as_str()))
    );
    assert_eq!(header(one, "nats-sequence"), Some("1"));
    assert!(header(one, "nats-time").is_some_and(|time| time.ends_with('Z')));
    let twos: Vec<_> =
        one.headers.iter().filter(|(name, _)| name == "x-two").map(|(_, value)| value.as_str()).collect();
    assert_eq!(twos, ["1", "2"]);
    assert_ne!(two.id, three.id, "each has its number in the stream");
    assert!(two.id.starts_with(&name) && two.id.ends_with(":2"), "{}", two.id);
    source.stop().await;
    client.rid_of_all(&name, "semel").await;
}

#[tokio::test]
async fn nats_waits_as_long_as_it_takes() {
    let broker = Broker::shared(Kind::Nats);
    let (client, name) = (NatsClient::new(broker).await, unique("slow"));
    client.stream(&name, &[&name]).await;
    let config = pull::Config {
        durable_name: Some("semel".into()),
        ack_policy: AckPolicy::Explicit,
        ack_wait: Duration::from_secs(1),
        ..pull::Config::default()
    };
    client.jetstream.create_consumer_on_stream(config, &name).await.expect("a consumer");
    for number in 0..20 {
        client.publish(&name, b"x", &[("Nats-Msg-Id", &format!("id-{number:04}"))]).await;
    }
    let source = Running::start(nats(broker, &format!("stream = \"{name}\"\nconsumer = \"semel\"")), false);
    source.until("offered", async |record| *record.offered.lock().expect("no panic") >= 1).await;
    tokio::time::sleep(Duration::from_secs(4)).await; // Four times what the server waits.
    source.record.gate.send_replace(true);
    in_order(&source.taken(20).await, 20);
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let taken = source.stop().await;
    assert_eq!(taken.len(), 20, "none was delivered again");
}

#[tokio::test]
async fn what_nats_is_not_rid_of_it_keeps() {
    let broker = Broker::shared(Kind::Nats);
    let (client, name) = (NatsClient::new(broker).await, unique("back"));
    let settings = format!("stream = \"{name}\"\nconsumer = \"semel\"\ndeclare = true\nsubjects = [\"{name}\"]");
    let first = Running::start(nats(broker, &settings), false);
    first.receives().await;
    for number in 0..30 {
        client.publish(&name, b"x", &[("Nats-Msg-Id", &format!("id-{number:04}"))]).await;
    }
    first.until("offered", async |record| *record.offered.lock().expect("no panic") > 0).await;
    assert_eq!(first.stop().await.len(), 0);
    assert_eq!(client.waiting(&name, "semel").await, 30, "none was acknowledged");
}
