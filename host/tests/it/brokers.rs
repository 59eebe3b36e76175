//! RabbitMQ and NATS servers of the tests' own, started by `.ci/rabbitmq` and `.ci/nats`: one of each that all tests share,
//! and one for each test that does harm to its server. And clients for them, as other programs would use them.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use async_nats::{ConnectOptions, jetstream};
use futures_util::StreamExt as _;
use lapin::options::{BasicAckOptions, BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions};
use lapin::options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties, ExchangeKind};
use rustix::process::{Pid, Signal, kill_process};

use crate::harness::root;

/// Which of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    RabbitMq,
    Nats,
}

/// A running server. It ends when this is dropped, or when the process ends, however it ends.
pub(crate) struct Broker {
    kind: Kind,
    keeper: Child,
    folder: PathBuf,
    port: u16,
}

/// For names that no other test uses.
pub(crate) fn unique(name: &str) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("{name}-{}", COUNT.fetch_add(1, Ordering::Relaxed))
}

pub(crate) fn free_port() -> u16 {
    semel::experiment::host::free_address().expect("a free port").port()
}

impl Broker {
    /// The one for all who do no harm.
    pub(crate) fn shared(kind: Kind) -> &'static Self {
        static SHARED: [OnceLock<Broker>; 2] = [OnceLock::new(), OnceLock::new()];
        SHARED[usize::from(kind == Kind::Nats)].get_or_init(|| Self::start(kind, free_port(), &[]))
    }

    /// One of a test's own, with settings as in its configuration file.
    pub(crate) fn start(kind: Kind, port: u16, settings: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder").keep();
        let script = root().join(if kind == Kind::Nats { ".ci/nats" } else { ".ci/rabbitmq" });
        let mut script = Command::new(script);
        script.arg(&folder).arg(port.to_string()).args(settings).stdin(Stdio::piped());
        let mut broker = Self { kind, keeper: script.spawn().expect("a script"), folder, port };
        broker.until_up();
        broker
    }

    pub(crate) fn url(&self) -> String {
        self.url_as("semel", "semel", self.port)
    }

    pub(crate) fn url_as(&self, user: &str, password: &str, port: u16) -> String {
        let scheme = if self.kind == Kind::Nats { "nats" } else { "amqp" };
        format!("{scheme}://{user}:{password}@127.0.0.1:{port}")
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// The certificate with which it encrypts, if it was started so.
    pub(crate) fn certificate(&self) -> PathBuf {
        self.folder.join("server.crt")
    }

    /// SIGKILL.
    pub(crate) fn kill(&self) {
        kill_process(self.server().expect("a server that is up"), Signal::KILL).expect("a server that is up");
        while TcpStream::connect(("127.0.0.1", self.port)).is_ok() {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// SIGSTOP, or SIGCONT: it keeps its connections, and says nothing.
    pub(crate) fn freeze(&self, freeze: bool) {
        let signal = if freeze { Signal::STOP } else { Signal::CONT };
        kill_process(self.server().expect("a server that is up"), signal).expect("a server that is up");
    }

    /// Up again after it was killed.
    pub(crate) fn restart(&mut self) {
        self.keeper.stdin.as_mut().expect("a pipe").write_all(b"start\n").expect("a keeper");
        self.until_up();
    }

    /// What the server has said.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }

    fn server(&self) -> Option<Pid> {
        Pid::from_raw(std::fs::read_to_string(self.folder.join("pid")).ok()?.trim().parse().ok()?)
    }

    fn until_up(&mut self) {
        let end = Instant::now() + Duration::from_secs(120);
        while self.greeting().is_none() {
            let ended = self.keeper.try_wait().expect("a keeper");
            assert!(ended.is_none() && Instant::now() < end, "{:?} does not start:\n{}", self.kind, self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The first byte that it says to who speaks its protocol.
    fn greeting(&self) -> Option<u8> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
        if self.kind == Kind::RabbitMq {
            stream.write_all(b"AMQP\0\0\x09\x01").ok()?;
        }
        let mut first = [0];
        stream.read_exact(&mut first).ok().map(|()| first[0])
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        let _ = self.keeper.wait(); // It has nothing more to do.
    }
}

/// Another program that uses RabbitMQ.
pub(crate) struct RabbitClient {
    _connection: Connection,
    pub(crate) channel: Channel,
}

impl RabbitClient {
    pub(crate) async fn new(broker: &Broker) -> Self {
        let connection =
            Connection::connect(&broker.url(), ConnectionProperties::default()).await.expect("a connection");
        let channel = connection.create_channel().await.expect("a channel");
        channel.confirm_select(ConfirmSelectOptions::default()).await.expect("confirms");
        Self { _connection: connection, channel }
    }

    /// A durable queue.
    pub(crate) async fn queue(&self, name: &str, arguments: &[(&str, AMQPValue)]) {
        let mut table = FieldTable::default();
        for (name, value) in arguments {
            table.insert((*name).into(), value.clone());
        }
        let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        self.channel.queue_declare(name.into(), options, table).await.expect("a queue");
    }

    /// A durable exchange of the kind `topic`, and a queue bound to it.
    pub(crate) async fn bound(&self, exchange: &str, key: &str, queue: &str) {
        let options = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
        let (kind, none) = (ExchangeKind::Topic, FieldTable::default());
        self.channel.exchange_declare(exchange.into(), kind, options, none.clone()).await.expect("an exchange");
        self.queue(queue, &[]).await;
        let options = QueueBindOptions::default();
        self.channel.queue_bind(queue.into(), exchange.into(), key.into(), options, none).await.expect("a binding");
    }

    /// Publishes to a queue, and waits until the broker has it on its disk.
    pub(crate) async fn publish(&self, queue: &str, body: &[u8], properties: BasicProperties) {
        let (properties, options) = (properties.with_delivery_mode(2), BasicPublishOptions::default());
        let confirm = self.channel.basic_publish("".into(), queue.into(), options, body, properties).await;
        assert!(confirm.expect("published").await.expect("confirmed").is_ack());
    }

    /// All that is in a queue now, and no longer.
    pub(crate) async fn drain(&self, queue: &str) -> Vec<lapin::message::Delivery> {
        let mut all = Vec::new();
        while let Some(got) = self.channel.basic_get(queue.into(), BasicGetOptions::default()).await.expect("a queue") {
            got.delivery.acker.ack(BasicAckOptions::default()).await.expect("acknowledged");
            all.push(got.delivery);
        }
        all
    }

    /// How many wait in a queue, without those that somebody has and has not acknowledged.
    pub(crate) async fn count(&self, queue: &str) -> u32 {
        let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let queue = self.channel.queue_declare(queue.into(), options, FieldTable::default()).await;
        queue.expect("a queue").message_count()
    }
}

/// Another program that uses NATS.
pub(crate) struct NatsClient {
    pub(crate) jetstream: jetstream::Context,
}

impl NatsClient {
    pub(crate) async fn new(broker: &Broker) -> Self {
        Self::with(broker, ConnectOptions::new()).await
    }

    pub(crate) async fn with(broker: &Broker, options: ConnectOptions) -> Self {
        let options = options.user_and_password("semel".into(), "semel".into());
        let client = options.connect(broker.url()).await.expect("a connection");
        Self { jetstream: jetstream::new(client) }
    }

    pub(crate) async fn stream(&self, name: &str, subjects: &[&str]) {
        let subjects = subjects.iter().map(ToString::to_string).collect();
        let config = jetstream::stream::Config { name: name.to_owned(), subjects, ..Default::default() };
        self.jetstream.create_stream(config).await.expect("a stream");
    }

    /// Publishes, and waits until a stream has it.
    pub(crate) async fn publish(&self, subject: &str, body: &[u8], headers: &[(&str, &str)]) {
        let mut map = async_nats::HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, *value);
        }
        let published = self.jetstream.publish_with_headers(subject.to_owned(), map, body.to_vec().into()).await;
        published.expect("published").await.expect("confirmed");
    }

    /// All that a stream holds, in its order.
    pub(crate) async fn all(&self, stream: &str) -> Vec<async_nats::Message> {
        let mut stream = self.jetstream.get_stream(stream).await.expect("a stream");
        let count = stream.info().await.expect("a stream").state.messages;
        let consumer = stream.create_consumer(jetstream::consumer::pull::OrderedConfig::default()).await;
        let messages = consumer.expect("a consumer").messages().await.expect("messages");
        let count = usize::try_from(count).expect("a few");
        messages.take(count).map(|message| message.expect("a message").split().0).collect().await
    }

    /// How many a consumer has still to deliver, or to be told that they are done.
    pub(crate) async fn waiting(&self, stream: &str, consumer: &str) -> u64 {
        let consumer =
            self.jetstream.get_consumer_from_stream::<jetstream::consumer::pull::Config, _, _>(consumer, stream);
        match consumer.await {
            Ok(consumer) => consumer.cached_info().num_pending + consumer.cached_info().num_ack_pending as u64,
            Err(_) => u64::MAX,
        }
    }

    /// Waits until a consumer has nothing more to deliver, and was told that all it had delivered is done.
    pub(crate) async fn rid_of_all(&self, stream: &str, consumer: &str) {
        let end = Instant::now() + Duration::from_secs(20);
        while self.waiting(stream, consumer).await > 0 {
            assert!(Instant::now() < end, "not all was acknowledged");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}
