//! Outbox, relay, broker, inbox: what is committed arrives, what is rolled back does not, and each is handled once.
//!
//! Method: functions publish events of some keys, in order, and every tenth of them is rolled back. Sinks relay what was
//! committed to RabbitMQ and to NATS, and at the end of each broker another host receives it and writes a row for each event.
//! All the while the hosts that relay are killed, every second time between RabbitMQ's confirmation and its record; so are the
//! hosts that receive, and the brokers; and one that stands still is a network that swallows everything. What each broker was given is read from a queue of
//! the experiment's own.
//! How to read it: the broker has duplicates, and the receiver has none. Nobody kept the broker from being sent an event twice;
//! the inbox is what makes it one.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use self::broker::{Broker, Kind};
use self::evidence::{Arrived, Tap, handled};
use self::faults::{Done, Faults};
use super::client::Client;
use super::host::{HostOptions, HostProcess};
use super::place::{Place, check_built};
use super::{Environment, Notify, Report};
use crate::store;

mod broker;
mod evidence;
mod faults;
mod findings;
pub mod sink_down;
mod verdict;

/// Publishes what it is told to.
const PUBLISHER: &str = "sqlshell";
/// Writes a row for each event.
const RECEIVER: &str = "receipts";
/// Of the events, on either side.
const TOPIC: &str = "receipts";
/// Keys of the events.
const KEYS: u64 = 8;
/// One of so many messages is rolled back.
const ROLLED_BACK: u64 = 10;
/// What is not handled this long after the last fault never will be.
const HANDLED_WITHIN: Duration = Duration::from_secs(180);
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// What to do.
#[derive(Debug, Clone)]
pub struct Options {
    /// The host's binary, if it is not the running program.
    pub program: Option<PathBuf>,
    /// An empty database for the side that publishes; on a server's two hosts relay. Without one, a fresh file.
    pub database: Option<String>,
    /// Repeats the order of the faults and the time between them.
    pub seed: u64,
    /// Where the report goes, and what the run leaves behind.
    pub out: PathBuf,
    /// Messages to send.
    pub messages: u64,
    /// SIGKILLs of hosts that relay.
    pub kills: u64,
    /// SIGKILLs of each broker, and of each host that receives from one.
    pub broker_kills: u64,
    /// Where `make guests` put the functions.
    pub functions: PathBuf,
    /// Where the scripts are that start brokers: `rabbitmq FOLDER PORT` and `nats FOLDER PORT`.
    pub scripts: PathBuf,
}

/// What was seen of one broker.
#[derive(Debug)]
pub(super) struct Seen {
    kind: Kind,
    kills: u64,
    /// What it was given, in order.
    arrived: Vec<Arrived>,
    /// What its receiver wrote, in order.
    handled: Vec<String>,
}

/// What was seen of a run.
#[derive(Debug)]
pub(super) struct Run {
    done: Done,
    relays: u64,
    committed: u64,
    rolled_back: u64,
    brokers: Vec<Seen>,
    seconds: f64,
}

/// A broker with who receives from it.
struct Line {
    broker: Broker,
    receiver: HostProcess,
}

/// Runs the experiment. The report is the caller's to write and print.
///
/// # Errors
/// If the experiment could not be carried out. A broken promise is not an error, but a verdict.
pub async fn run(options: &Options, notify: Notify<'_>) -> anyhow::Result<Report> {
    check_built(&options.functions, &[PUBLISHER, RECEIVER])?;
    let place = Place::take(&options.out)?;
    let database = options.database.clone().unwrap_or_else(|| place.database("publisher"));
    let environment = Environment::observe(options.seed, &database);
    notify("starting brokers");
    let mut lines = Vec::new();
    for kind in Kind::ALL {
        let broker = Broker::start(kind, &options.scripts).await?;
        Tap::open(&broker).await.with_context(|| format!("cannot prepare {}", kind.name()))?;
        lines.push(Line { receiver: receiver(options, &place, &broker).await?, broker });
    }
    let sinks: String = lines.iter().map(|line| line.broker.sink()).collect();
    let mut relays = Vec::new();
    let count = if store::is_shared(&database) { 2 } else { 1 };
    for number in 0..count {
        let folder = place.folder().join(format!("relay-{number}"));
        relays.push(start(options.program.as_ref(), &database, folder, sinks.clone()).await?);
    }
    let publisher = place.variant(
        &options.functions.join(PUBLISHER),
        &[
            ("flow", "group = \"serial\""),
            ("retry", "max_attempts = 100\nbackoff = { initial = \"20ms\", factor = 1.0 }"),
        ],
    )?;
    let client = relays.first().context("there is no relay")?.client().clone();
    client.deploy(&publisher, None).await?;
    let began = Instant::now();
    let released = Arc::new(Semaphore::new(0));
    let hosts = relays.iter().map(|relay| relay.client().clone()).collect();
    let senders = send_all(hosts, options.messages, &released);
    let mut faults = Faults::new(options, place.folder(), released);
    let done = faults.run(&mut relays, &mut lines, senders, notify).await?;
    let rolled_back = options.messages / ROLLED_BACK;
    let committed = options.messages - rolled_back;
    until_handled(&client, &mut lines, committed, notify).await?;
    let seconds = began.elapsed().as_secs_f64();
    let mut brokers = Vec::new();
    for Line { broker, receiver } in &lines {
        let arrived = Tap::drain(broker).await.with_context(|| format!("cannot read from {}", broker.kind.name()))?;
        brokers.push(Seen {
            kind: broker.kind,
            kills: broker.kills,
            arrived,
            handled: handled(receiver.client()).await?,
        });
    }
    let run = Run { done, relays: count, committed, rolled_back, brokers, seconds };
    Ok(findings::report(options, &run, environment.finished()))
}

async fn start(
    program: Option<&PathBuf>,
    database: &str,
    folder: PathBuf,
    configuration: String,
) -> anyhow::Result<HostProcess> {
    let mut host = HostOptions::new(database, folder)?;
    if let Some(program) = program {
        host.program.clone_from(program);
    }
    host.configuration = configuration;
    HostProcess::start(host).await
}

/// A host with a database of its own, which receives from one broker.
async fn receiver(options: &Options, place: &Place, broker: &Broker) -> anyhow::Result<HostProcess> {
    let name = broker.kind.name();
    let host =
        start(options.program.as_ref(), &place.database(name), place.folder().join(name), broker.source()).await?;
    let function = place.variant(&options.functions.join(RECEIVER), &[("flow", "group = \"serial\"")])?;
    host.client().deploy(&function, None).await?;
    host.client().deploy(&options.functions.join(PUBLISHER), None).await?; // To read the rows.
    Ok(host)
}

/// Sends all messages as they are released, those of one key in order.
fn send_all(hosts: Vec<Client>, messages: u64, released: &Arc<Semaphore>) -> JoinSet<anyhow::Result<()>> {
    let mut senders = JoinSet::new();
    for key in 0..KEYS {
        let mut hosts: Vec<_> = hosts.iter().map(|host| host.in_group(&format!("key-{key}"))).collect();
        let released = Arc::clone(released);
        senders.spawn(async move {
            for number in (key..messages).step_by(usize::try_from(KEYS)?) {
                released.acquire().await?.forget();
                hosts.rotate_left(1); // Each host has a part of them, and relays that first.
                let hosts: Vec<_> = hosts.iter().collect();
                let body = script(key, number).to_string();
                Client::send_to_any(&hosts, &format!("/fn/{PUBLISHER}"), &format!("event-{number}"), body.as_bytes())
                    .await?;
            }
            Ok(())
        });
    }
    senders
}

/// The text of an event: by its key, in order.
fn event(key: u64, number: u64) -> String {
    format!("key-{key} {number:08}")
}

/// Whether the message of this number is rolled back.
fn is_rolled_back(number: u64) -> bool {
    number % ROLLED_BACK == ROLLED_BACK - 1
}

fn script(key: u64, number: u64) -> serde_json::Value {
    let publish = serde_json::json!({ "topic": TOPIC, "body": event(key, number), "group": format!("key-{key}") });
    let end = if is_rolled_back(number) { "reject" } else { "ok" };
    serde_json::json!({ "statements": [{ "publish": publish }], "end": end })
}

/// Returns when each receiver has all, and nothing is under way any more.
async fn until_handled(client: &Client, lines: &mut [Line], committed: u64, notify: Notify<'_>) -> anyhow::Result<()> {
    let began = Instant::now();
    let mut rounds = 0_u32;
    loop {
        let mut counts = BTreeMap::new();
        for line in lines.iter_mut() {
            line.receiver.check_alive()?;
            let its = line.receiver.client().counts(RECEIVER).await?;
            counts.insert(line.broker.kind.name(), (its.completed, its.open()));
        }
        let open = client.open().await?;
        if open == 0 && counts.values().all(|(completed, open)| *completed >= committed && *open == 0) {
            // Whoever is handled twice would be so now.
            tokio::time::sleep(Duration::from_secs(2)).await;
            return Ok(());
        }
        if began.elapsed() > HANDLED_WITHIN {
            bail!(
                "after {HANDLED_WITHIN:?} {open} messages are open where they are published, and handled are {counts:?}"
            );
        }
        if rounds.is_multiple_of(5) {
            notify(&format!("{open} open where they are published, handled of {committed}: {counts:?}"));
        }
        rounds += 1;
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
