//! One sink is down: do the others notice?
//!
//! Method: functions publish events of some keys at a steady pace, and a host relays them to RabbitMQ and to NATS. In turns both
//! are up, and NATS is killed for as long; then it comes back, and what waited for it is relayed. How fast RabbitMQ is given
//! events is read off its sink's settled messages, at even times.
//! How to read it: RabbitMQ's pace is the same in both turns, NATS has everything in the end, and each key is in order.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::super::client::Client;
use super::super::place::{Place, check_built};
use super::super::{Check, Environment, Figure, Notify, Report, Table, Verdict};
use super::broker::{Broker, Kind};
use super::evidence::{Arrived, Tap};
use super::verdict::{bodies, distinct, out_of_order};
use super::{KEYS, PUBLISHER, TOPIC, event, start};

/// Between two looks at how many events have left.
const LOOK_EVERY: Duration = Duration::from_secs(3);
/// What has not left so long after a sink came back never will.
const RELAYED_WITHIN: Duration = Duration::from_secs(300);
/// In hundredths of the pace while both are up.
const PACE: std::ops::RangeInclusive<u64> = 91..=109;

/// What to do.
#[derive(Debug, Clone)]
pub struct Options {
    /// The host's binary, if it is not the running program.
    pub program: Option<std::path::PathBuf>,
    /// An empty database. Without one, a fresh file.
    pub database: Option<String>,
    /// For the record: nothing here is left to chance.
    pub seed: u64,
    /// Where the report goes, and what the run leaves behind.
    pub out: std::path::PathBuf,
    /// Times that NATS is killed.
    pub pairs: u64,
    /// How long it stays away, and how long a turn is in which it does not.
    pub down: Duration,
    /// Events per second.
    pub pace: u64,
    /// Where `make guests` put the functions.
    pub functions: std::path::PathBuf,
    /// Where the scripts are that start brokers.
    pub scripts: std::path::PathBuf,
}

/// What was seen of a run.
struct Run {
    /// RabbitMQ's pace while both are up and while NATS is down, by turns: the median, in events per second.
    paces: Vec<[f64; 2]>,
    /// Events that waited for NATS when it came back, by turns.
    waiting: Vec<u64>,
    committed: u64,
    arrived: Vec<(Kind, Vec<Arrived>)>,
}

/// Runs the experiment. The report is the caller's to write and print.
///
/// # Errors
/// If the experiment could not be carried out. A broken promise is not an error, but a verdict.
pub async fn run(options: &Options, notify: Notify<'_>) -> anyhow::Result<Report> {
    check_built(&options.functions, &[PUBLISHER])?;
    let place = Place::take(&options.out)?;
    let database = options.database.clone().unwrap_or_else(|| place.database("publisher"));
    let environment = Environment::observe(options.seed, &database);
    notify("starting brokers");
    let mut brokers = Vec::new();
    for kind in Kind::ALL {
        let broker = Broker::start(kind, &options.scripts).await?;
        Tap::open(&broker).await.with_context(|| format!("cannot prepare {}", kind.name()))?;
        brokers.push(broker);
    }
    let sinks: String = brokers.iter().map(Broker::sink).collect();
    let host = start(options.program.as_ref(), &database, place.folder().join("host"), sinks).await?;
    let serial = [("flow", "group = \"serial\"")];
    host.client().deploy(&place.variant(&options.functions.join(PUBLISHER), &serial)?, None).await?;
    let mut run = Run { paces: Vec::new(), waiting: Vec::new(), committed: 0, arrived: Vec::new() };
    let load = Load::start(host.client(), options.pace);
    for pair in 1..=options.pairs {
        notify(&format!("pair {pair} of {}: both are up", options.pairs));
        let up = pace(host.client(), options.down).await?;
        nats(&mut brokers)?.kill()?;
        notify(&format!("{up:.0} events a second; NATS is down"));
        let down = pace(host.client(), options.down).await?;
        let waiting = host.client().counts(&sink(Kind::Nats)).await?.open();
        nats(&mut brokers)?.restart().await?;
        notify(&format!("{down:.0} events a second, and {waiting} wait for NATS, which is back"));
        until_relayed(host.client(), waiting).await?;
        run.paces.push([up, down]);
        run.waiting.push(waiting);
    }
    run.committed = load.stop().await?;
    until_relayed(host.client(), u64::MAX).await?;
    for broker in &brokers {
        let arrived = Tap::drain(broker).await.with_context(|| format!("cannot read from {}", broker.kind.name()))?;
        run.arrived.push((broker.kind, arrived));
    }
    Ok(report(options, &run, environment.finished()))
}

fn nats(brokers: &mut [Broker]) -> anyhow::Result<&mut Broker> {
    brokers.iter_mut().find(|broker| broker.kind == Kind::Nats).context("there is no NATS")
}

fn sink(kind: Kind) -> String {
    format!("sink:{}", kind.name())
}

/// Senders that keep a pace, each with a key of its own, in order.
struct Load {
    senders: JoinSet<anyhow::Result<()>>,
    /// Events that were accepted.
    sent: Arc<AtomicU64>,
}

impl Load {
    fn start(client: &Client, pace: u64) -> Self {
        let (mut senders, sent) = (JoinSet::new(), Arc::new(AtomicU64::new(0)));
        for key in 0..KEYS {
            let (client, sent) = (client.in_group(&format!("key-{key}")), Arc::clone(&sent));
            senders.spawn(async move {
                let mut due = interval(Duration::from_secs(KEYS) / u32::try_from(pace.max(1))?);
                due.set_missed_tick_behavior(MissedTickBehavior::Burst);
                for number in 0_u64.. {
                    due.tick().await;
                    let publish = serde_json::json!({
                        "topic": TOPIC, "body": event(key, number), "group": format!("key-{key}"),
                    });
                    let body = serde_json::json!({ "statements": [{ "publish": publish }] }).to_string();
                    client.send(&format!("/fn/{PUBLISHER}"), &format!("{key}-{number}"), body.as_bytes()).await?;
                    sent.fetch_add(1, Ordering::Relaxed);
                }
                Ok(())
            });
        }
        Self { senders, sent }
    }

    /// Returns how many events were accepted. One that was on its way may be there as well: its sender asks again.
    async fn stop(mut self) -> anyhow::Result<u64> {
        if let Some(ended) = self.senders.try_join_next() {
            ended.context("a sender broke off")??;
        }
        self.senders.shutdown().await;
        Ok(self.sent.load(Ordering::Relaxed))
    }
}

/// The median of RabbitMQ's pace over this time, in events per second.
async fn pace(client: &Client, time: Duration) -> anyhow::Result<f64> {
    let rabbitmq = sink(Kind::RabbitMq);
    let (end, mut paces) = (Instant::now() + time, Vec::new());
    let (mut at, mut before) = (Instant::now(), client.counts(&rabbitmq).await?.completed);
    while Instant::now() < end {
        sleep(LOOK_EVERY).await;
        let now = client.counts(&rabbitmq).await?.completed;
        #[expect(clippy::cast_precision_loss, reason = "events of a few seconds")]
        paces.push((now - before) as f64 / at.elapsed().as_secs_f64());
        (at, before) = (Instant::now(), now);
    }
    paces.sort_by(f64::total_cmp);
    paces.get(paces.len() / 2).copied().context("no time to look")
}

/// Returns when as many events have left for NATS as waited for it, or all.
async fn until_relayed(client: &Client, waiting: u64) -> anyhow::Result<()> {
    let (began, before) = (Instant::now(), client.counts(&sink(Kind::Nats)).await?.completed);
    loop {
        let nats = client.counts(&sink(Kind::Nats)).await?;
        if nats.completed.saturating_sub(before) >= waiting || client.open().await? == 0 {
            return Ok(());
        }
        if began.elapsed() > RELAYED_WITHIN {
            bail!("after {RELAYED_WITHIN:?} {} events still wait for NATS", nats.open());
        }
        sleep(Duration::from_millis(200)).await;
    }
}

fn report(options: &Options, run: &Run, environment: Environment) -> Report {
    let row = |(pair, ([up, down], waiting)): (usize, (&[f64; 2], &u64))| {
        vec![(pair + 1).to_string(), format!("{up:.1}"), format!("{down:.1}"), waiting.to_string()]
    };
    Report {
        experiment: "sink-down",
        title: "One sink is down: the others do not notice".to_owned(),
        method: format!(
            "A function publishes {} events a second, of {KEYS} keys, which a host relays to RabbitMQ and to NATS. In turns both \
             are up for {:?}, and NATS is killed for as long. The pace is that of RabbitMQ's sink, the median of all looks at it; \
             what each broker was given is read from a queue of the experiment's own.",
            options.pace, options.down
        ),
        verdict: judge(run),
        figures: vec![
            Figure::count("events committed", run.committed),
            Figure::count("events that waited for NATS", run.waiting.iter().sum()),
            Figure::measure("pace while NATS is down, of that while it is up", ratio(run), "%"),
        ],
        plots: Vec::new(),
        tables: vec![Table {
            title: "RabbitMQ's pace, in events per second".to_owned(),
            columns: vec!["pair", "both up", "NATS down", "then waiting for NATS"],
            rows: run.paces.iter().zip(&run.waiting).enumerate().map(row).collect(),
        }],
        environment,
    }
}

/// The median over all pairs, in hundredths.
fn ratio(run: &Run) -> f64 {
    let mut ratios: Vec<f64> = run.paces.iter().map(|[up, down]| 100.0 * down / up).collect();
    ratios.sort_by(f64::total_cmp);
    ratios.get(ratios.len() / 2).copied().unwrap_or(0.0)
}

fn judge(run: &Run) -> Verdict {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "hundredths")]
    let ratio = ratio(run).round() as u64;
    let fewest = run.waiting.iter().copied().min().unwrap_or(0);
    let mut checks = vec![
        Check::new("events that waited for NATS, each time", fewest > 0, "1 or more", fewest.to_string()),
        Check::new(
            "RabbitMQ's pace while NATS is down, in hundredths of that while both are up",
            PACE.contains(&ratio),
            format!("{} to {}", PACE.start(), PACE.end()),
            ratio.to_string(),
        ),
    ];
    for (kind, arrived) in &run.arrived {
        let (name, found) = (kind.name(), distinct(bodies(arrived)));
        let all = (run.committed..=run.committed + KEYS).contains(&found);
        checks.push(Check::new(
            format!("{name}: events that arrived"),
            all,
            format!("{}, and at most {KEYS} of which the sender had no answer yet", run.committed),
            found.to_string(),
        ));
        checks.push(Check::equal(format!("{name}: keys out of order"), 0, out_of_order(bodies(arrived))));
    }
    let shown = format!(
        "while NATS was down, RabbitMQ was given {ratio} % of what it is given while both are up; all {} events arrived at both, in the \
         order of their keys",
        run.committed
    );
    Verdict::of(checks, shown)
}
