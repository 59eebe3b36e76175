//! The database goes away: killed, restarted, behind a line that swallows everything. Hosts stay up, take in nothing that
//! they cannot keep, and are back soon after it is.

use std::time::{Duration, Instant};

use reqwest::StatusCode;
use semel::experiment::proxy::Proxy;
use serde_json::json;

use crate::harness::{On, Semel, Start, built, in_server, until};
use crate::servers::{Server, database, on_every_server};

on_every_server!(
    a_database_that_is_killed_under_load_is_used_again_at_once,
    a_line_that_swallows_everything_makes_nobody_lie_or_spin,
    what_was_acknowledged_outlives_the_database,
);

/// A hang. What is measured is printed.
const HANG: Duration = Duration::from_secs(30);

/// On a database that is not the shared one.
async fn host_on(on: On, database: &str, functions: &[&str]) -> Semel {
    Semel::start_as(Start { on, database: Some(database), ..Start::default() }, functions).await
}

/// Seconds of processor time that a process has used.
fn processor_time(process: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).expect("a process");
    let fields: Vec<&str> = stat.rsplit_once(") ").expect("a name").1.split(' ').collect();
    let ticks: f64 = fields[11..13].iter().map(|ticks| ticks.parse::<f64>().expect("a number")).sum();
    ticks / 100.0
}

/// Sends and counts what was accepted, until it is told to end.
struct Load {
    stop: tokio::sync::watch::Sender<bool>,
    sent: tokio::task::JoinSet<u64>,
}

impl Load {
    fn start(semel: &Semel, senders: u32) -> Self {
        let (stop, stopped) = tokio::sync::watch::channel(false);
        let mut sent = tokio::task::JoinSet::new();
        for sender in 0..senders {
            let (url, stopped) = (format!("{}/count/{sender}", semel.url()), stopped.clone());
            sent.spawn(async move {
                let client =
                    reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(40)).build().expect("a client");
                let mut accepted = 0;
                while !*stopped.borrow() {
                    match client.post(&url).send().await.map(|answer| answer.status()) {
                        Ok(StatusCode::ACCEPTED) => accepted += 1,
                        Ok(StatusCode::SERVICE_UNAVAILABLE) => {}
                        other => panic!("{other:?}"),
                    }
                    tokio::time::sleep(Duration::from_millis(40)).await;
                }
                accepted
            });
        }
        Self { stop, sent }
    }

    async fn end(mut self) -> u64 {
        self.stop.send(true).expect("senders");
        let mut accepted = 0;
        while let Some(one) = self.sent.join_next().await {
            accepted += one.expect("a sender");
        }
        accepted
    }
}

/// How many counters were completed in a second from now.
async fn rate(semel: &Semel) -> u64 {
    let before = semel.count("counter", "completed").await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    semel.count("counter", "completed").await - before
}

/// The sum of all counters.
async fn counted(semel: &Semel) -> u64 {
    let counters = semel.sql("SELECT n FROM counters").await;
    counters.as_array().expect("rows").iter().filter_map(|row| row[0].as_u64()).sum()
}

async fn a_database_that_is_killed_under_load_is_used_again_at_once(on: On) {
    let mut cluster = Server::start(on, &[]);
    let semel = host_on(on, &cluster.database().await, &["counter"]).await;
    let load = Load::start(&semel, 4);
    until("a load", async || (semel.count("counter", "completed").await > 20).then_some(())).await;
    let normal = rate(&semel).await;
    let mut back = Vec::new();
    for _ in 0..2 {
        cluster.kill();
        let down = until("a host that says so", async || {
            let ready = semel.get("/readyz").await;
            (ready.status != 200).then_some(ready)
        });
        down.await.problem(503);
        cluster.restart();
        let up = Instant::now();
        until("normal speed", async || {
            let counts = semel.get("/v1/counts").await;
            (counts.status == 200 && rate(&semel).await * 2 > normal).then_some(())
        })
        .await;
        back.push(up.elapsed());
    }
    let accepted = load.end().await;
    until("the end of all", async || {
        let open: i64 = semel.in_store("SELECT count(*) FROM semel_queue").await;
        (open == 0).then_some(())
    })
    .await;
    let completed = semel.count("counter", "completed").await;
    assert!(completed >= accepted, "{accepted} accepted, {completed} completed");
    assert_eq!(counted(&semel).await, completed);
    eprintln!("{normal} messages/s; after a restart normal again within {back:?} (a second of it is the measurement)");
    assert!(back.iter().all(|time| *time < HANG), "{back:?}");
}

async fn a_line_that_swallows_everything_makes_nobody_lie_or_spin(on: On) {
    let hole = std::env::var("BLACK_HOLE").map_or(5, |seconds| seconds.parse().expect("BLACK_HOLE is a number"));
    let database = database(on).await;
    let proxy = Proxy::start(&database).await.expect("a proxy");
    let semel = host_on(on, proxy.url(), &["counter"]).await;
    let load = Load::start(&semel, 4);
    until("a load", async || (semel.count("counter", "completed").await > 20).then_some(())).await;
    proxy.black_hole();
    let (began, before) = (Instant::now(), processor_time(semel.process()));
    tokio::time::sleep(Duration::from_millis(500)).await; // What was on its way has arrived.
    let messages = on.names("SELECT count(*) FROM semel_messages");
    let taken_in: i64 = in_server(&database, &messages).await;
    semel.get("/readyz").await.problem(503);
    assert_eq!(semel.get("/healthz").await.status, 200);
    tokio::time::sleep(Duration::from_secs(hole).saturating_sub(began.elapsed())).await;
    let share = (processor_time(semel.process()) - before) / began.elapsed().as_secs_f64();
    let still: i64 = in_server(&database, &messages).await;
    assert_eq!(still, taken_in, "something got through");
    proxy.restore();
    let restored = Instant::now();
    until("a host that is ready", async || (semel.get("/readyz").await.status == 200).then_some(())).await;
    assert_eq!(semel.call("counter", "visits").await.status, 200);
    let back = restored.elapsed();
    let accepted = load.end().await;
    until("the end of all", async || {
        let open: i64 = semel.in_store("SELECT count(*) FROM semel_queue").await;
        (open == 0).then_some(())
    })
    .await;
    let completed = semel.count("counter", "completed").await;
    assert!(completed > accepted, "{accepted} and one more accepted, {completed} completed");
    assert_eq!(counted(&semel).await, completed);
    eprintln!("a black hole of {hole} s: {:.1} % of a processor, back {back:?} after it", share * 100.0);
    assert!(share < 0.5 && back < HANG, "{share} {back:?}");
}

/// What was acknowledged stays, also when all of the server is killed, and whatever a guest said about its session.
async fn what_was_acknowledged_outlives_the_database(on: On) {
    let kills: usize =
        std::env::var("DATABASE_KILLS").map_or(3, |kills| kills.parse().expect("DATABASE_KILLS is a number"));
    // Without a wait for the log nothing would be written for a while.
    let lazy = match on {
        On::Postgres => &["fsync=on", "wal_writer_delay=10000", "wal_writer_flush_after=0", "bgwriter_delay=10000"][..],
        _ => &["innodb_flush_log_at_timeout=10"][..],
    };
    let mut cluster = Server::start(on, lazy);
    let semel = host_on(on, &cluster.database().await, &[]).await;
    semel.deploy(built("sqlshell")).await;
    let each = 50_usize.div_ceil(kills);
    let (mut acknowledged, mut accepted) = (Vec::new(), Vec::new());
    for _ in 0..kills {
        for n in 0..each {
            let way = ["false", "true"][n % 2];
            let off = json!({ "sql": format!("SELECT set_config('synchronous_commit', 'off', {way})") });
            let insert = format!("INSERT INTO scratch (id, value) VALUES ({}, NULL)", acknowledged.len());
            let insert = json!({ "sql": insert });
            // What Postgres has a function for, MariaDB has only a statement for, which no guest can say.
            let statements = if on == On::Postgres { json!([off, insert]) } else { json!([insert]) };
            let script = json!({ "statements": statements }).to_string();
            let later = semel.post("/fn/sqlshell", script.clone()).header("semel-delay", "1h").send().await;
            assert_eq!(later.status, 202, "{}", later.text());
            accepted.push(later.id());
            // Last: any commit after it would take it along to the disk.
            let answer = semel.call("sqlshell", &script).await;
            assert_eq!(answer.status, 200, "{}", answer.text());
            acknowledged.push(answer.id());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        cluster.kill();
        cluster.restart();
        until("a host that is ready", async || (semel.get("/readyz").await.status == 200).then_some(())).await;
    }
    let mut kept = 0;
    for (id, later) in acknowledged.iter().zip(&accepted) {
        kept += usize::from(
            semel.get(&format!("/v1/messages/{id}")).await.status == 200 && semel.state(id).await == "completed",
        );
        assert_eq!(semel.state(later).await, "available");
    }
    assert_eq!(kept, acknowledged.len(), "of so many that were acknowledged");
    assert_eq!(semel.sql("SELECT count(*) FROM scratch").await, json!([[acknowledged.len()]]));
    eprintln!("{kept} of {} acknowledged messages outlived {kills} kills", acknowledged.len());
}
