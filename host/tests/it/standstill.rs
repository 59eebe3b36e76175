//! Several hosts on one database, of which one stands still, is cut off, or believes in another time. Its work is taken over
//! within a lease, and what it does afterwards is refused.

use std::net::SocketAddr;
use std::process::Command;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use futures_util::stream::{self, StreamExt as _};
use rustix::process::Signal;
use semel::experiment::proxy::Proxy;
use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::faults::{brisk, sleep};
use crate::harness::{On, Semel, Start, built, in_server, until};
use crate::servers::{as_superuser, database, name_of, on_every_server};

on_every_server!(
    a_host_that_wakes_up_after_its_lease_commits_nothing,
    a_frozen_host_holds_no_lock_longer_than_its_lease,
    a_host_with_another_time_takes_nothing_over,
);

/// The library that moves a process's clock, where Debian keeps it.
fn faketime() -> String {
    let folders = std::fs::read_dir("/usr/lib").expect("/usr/lib").filter_map(|entry| Some(entry.ok()?.path()));
    let library = folders.map(|folder| folder.join("faketime/libfaketime.so.1")).find(|path| path.exists());
    library.expect("no faketime: run .ci/setup").to_str().expect("text").to_owned()
}

fn at(on: On, database: &str) -> Start<'_> {
    Start { on, database: Some(database), ..Start::default() }
}

async fn stand_still(semel: &mut Semel) {
    semel.signal(Signal::STOP);
    let stat = format!("/proc/{}/stat", semel.process());
    until("a host that stands still", async || {
        std::fs::read_to_string(&stat).expect("the process").contains(") T ").then_some(())
    })
    .await;
}

/// Sends through one host until another one runs something. Returns what was sent.
async fn until_it_works(through: &Semel, host: &Semel) -> Vec<String> {
    let mut sent = Vec::new();
    until("work on a host", async || {
        sent.push(through.send("misbehave", r#"{"do": "write"}"#).await);
        tokio::time::sleep(Duration::from_millis(50)).await;
        sent.iter().any(|id| !host.starts(id).is_empty()).then_some(())
    })
    .await;
    sent
}

/// All are completed, each once, with its row where it has one.
async fn completed_once(semel: &Semel, ids: &[String]) {
    for id in ids {
        assert_eq!(semel.until_settled(id).await["state"], "completed", "{id}");
        let outcomes = semel.outcomes(id).await;
        assert_eq!(outcomes.iter().filter(|outcome| *outcome == "completed").count(), 1, "{outcomes:?}");
    }
}

/// It wakes up in the middle of its commits: somebody else has its messages, so they are refused.
async fn a_host_that_wakes_up_after_its_lease_commits_nothing(on: On) {
    let database = database(on).await;
    let proxy = Proxy::start(&database).await.expect("a proxy");
    let mut zombie = Semel::start_as(at(on, proxy.url()), &[]).await;
    let patient = built("misbehave").with("max_attempts = 2", "max_attempts = 20");
    zombie.deploy(brisk(patient, "1s")).await;
    proxy.delay(Duration::from_millis(60)); // A commit takes half a second, so there is time to stop in it.
    let ok = join_all((0..8).map(|_| zombie.send("misbehave", r#"{"do": "ok"}"#))).await;
    let write = join_all((0..8).map(|_| zombie.send("misbehave", r#"{"do": "write"}"#))).await;
    until("runs", async || ok.iter().any(|id| !zombie.starts(id).is_empty()).then_some(())).await;
    stand_still(&mut zombie).await;
    let held: i64 = in_server(&database, &on.names("SELECT count(*) FROM semel_queue WHERE state = 'running'")).await;
    assert!(held > 0, "it stood still with nothing in its hands");
    proxy.delay(Duration::ZERO);
    let other = Semel::start_as(at(on, &database), &[]).await;
    let all = [ok, write.clone()].concat();
    let began = Instant::now();
    completed_once(&other, &all).await;
    let taken_over = began.elapsed();
    zombie.signal(Signal::CONT);
    let refused = until("a refused commit", async || {
        let refused = on.names("SELECT count(*) FROM semel_attempts WHERE outcome = 'lost-lease'");
        Some(in_server::<i64>(&database, &refused).await).filter(|refused| *refused > 0)
    })
    .await;
    let more = until_it_works(&other, &zombie).await;
    completed_once(&other, &[all, more.clone()].concat()).await;
    let rows = other.sql("SELECT count(*), count(DISTINCT message_id) FROM misbehaviour").await;
    let expected = write.len() + more.len();
    assert_eq!(rows, json!([[expected, expected]]));
    eprintln!("{held} messages in its hands, taken over in {taken_over:?}, {refused} commits refused");
}

/// The server lets go of what a frozen host has locked: nobody waits for it longer than a lease.
async fn a_frozen_host_holds_no_lock_longer_than_its_lease(on: On) {
    let database = database(on).await;
    let mut frozen = Semel::start_as(at(on, &database), &[]).await;
    let shell = built("sqlshell").with("timeout = \"5s\"", "timeout = \"2s\"\nlease = \"3500ms\"");
    frozen.deploy(shell.with("max_attempts = 2", "max_attempts = 20")).await;
    let (update, sleep) = match on {
        On::Postgres => ("ON CONFLICT (id) DO UPDATE SET value = 'y'", "1 FROM pg_sleep"),
        _ => ("ON DUPLICATE KEY UPDATE value = 'y'", "sleep"),
    };
    let update = format!("INSERT INTO scratch (id, value) VALUES (1, 'x') {update}");
    let script = |pause: f64| {
        let pause = format!("SELECT {sleep}({pause})");
        json!({ "statements": [{ "sql": update }, { "sql": pause }] }).to_string()
    };
    let first = frozen.send("sqlshell", &script(0.5)).await;
    let asleep = match on {
        On::Postgres => {
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'".into()
        }
        _ => format!(
            "SELECT count(*) FROM information_schema.processlist WHERE db LIKE '{}\\_%' AND state = 'User sleep'",
            name_of(&database)
        ),
    };
    // The engine's login does not see what guests do.
    let superuser = as_superuser(on, &database);
    until("a guest in a statement", async || {
        let asleep: i64 = in_server(&superuser, &asleep).await;
        (asleep > 0).then_some(())
    })
    .await;
    stand_still(&mut frozen).await;
    let began = Instant::now();
    let open = match on {
        On::Postgres => {
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state LIKE 'idle in%'".into()
        }
        _ => format!(
            "SELECT count(*) FROM information_schema.innodb_trx t
             JOIN information_schema.processlist p ON p.id = t.trx_mysql_thread_id
             WHERE p.db LIKE '{}\\_%' AND p.command = 'Sleep'",
            name_of(&database)
        ),
    };
    until("a transaction that nobody works on", async || {
        // To whoever looks more often MariaDB shows what it showed before.
        tokio::time::sleep(Duration::from_millis(150)).await;
        let open: i64 = in_server(&superuser, &open).await;
        (open > 0).then_some(())
    })
    .await;
    let other = Semel::start_as(at(on, &database), &[]).await;
    let second = other.send("sqlshell", &script(0.0)).await;
    completed_once(&other, &[first.clone(), second]).await;
    let free = began.elapsed();
    frozen.signal(Signal::CONT);
    completed_once(&other, &[first]).await;
    eprintln!("both done {free:?} after the other one froze");
}

/// Leases and due times are the database's: hosts that are an hour early or late take nothing over, and nothing is early.
async fn a_host_with_another_time_takes_nothing_over(on: On) {
    let library = faketime();
    let database = database(on).await;
    let semel = Semel::start_as(at(on, &database), &[]).await;
    semel.deploy(built("misbehave").with("timeout = \"1s\"", "timeout = \"5s\"\nlease = \"6500ms\"")).await;
    semel.deploy(built("counter")).await;
    let now = match on {
        On::Postgres => "SELECT semel.now() / 1000000",
        _ => "SELECT UNIX_TIMESTAMP()",
    };
    for shift in ["+1h", "-1h"] {
        let variables = [("LD_PRELOAD", library.as_str()), ("FAKETIME", shift), ("FAKETIME_DONT_FAKE_MONOTONIC", "1")];
        let other = Semel::start_as(Start { variables: &variables, ..at(on, &database) }, &[]).await;
        let wrong = Command::new("date").envs(variables).arg("+%s").output().expect("date").stdout;
        let wrong: i64 = String::from_utf8(wrong).expect("text").trim().parse().expect("seconds");
        let right: i64 = in_server(&database, now).await;
        assert!((wrong - right).abs() > 3000, "the clock was not moved");
        let pause = sleep(300);
        completed_once(&semel, &until_it_works(&semel, &other).await).await;
        let slow = join_all((0..48).map(|_| semel.send("misbehave", &pause))).await;
        let delayed = join_all((0..8).map(|n| {
            let host = if n % 2 == 0 { &semel } else { &other };
            async move { host.post("/count/later", "").header("semel-delay", "1s").send().await.id() }
        }))
        .await;
        completed_once(&semel, &slow).await;
        completed_once(&semel, &delayed).await;
        for id in slow.iter().chain(&delayed) {
            let outcomes = semel.outcomes(id).await;
            let early = |outcome: &String| outcome == "host-lost" || outcome == "lost-lease";
            assert!(!outcomes.iter().any(early), "it was taken over early: {outcomes:?}");
            assert_eq!(semel.starts(id).len() + other.starts(id).len(), outcomes.len());
        }
        let both = [&semel, &other].map(|host| slow.iter().filter(|id| !host.starts(id).is_empty()).count());
        assert!(both.iter().all(|runs| *runs > 0), "one host did nothing: {both:?}");
        let ids: Vec<String> = delayed.iter().map(|id| format!("'{id}'")).collect();
        let mut late: Vec<i64> = Vec::new();
        for end in ["min", "max"] {
            let sql = format!(
                "SELECT {end}(a.claimed_at - m.due_at) FROM semel_messages m JOIN semel_attempts a USING (seq) \
                 WHERE m.id IN ({})",
                ids.join(", ")
            );
            late.push(in_server(&database, &on.names(&sql)).await);
        }
        assert!(late[0] >= 0 && late[1] < 30_000_000, "{late:?} µs after they were due");
        eprintln!("{shift}: {both:?} runs, delayed messages {late:?} µs after they were due");
    }
}

/// A host in a network namespace of its own, on one end of a cable; the other end is here. Both go with its process.
struct Apart {
    semel: Semel,
    cable: String,
}

impl Apart {
    /// Makes the cable from within: its process becomes the host.
    const SCRIPT: &str = "here=/proc/$PPID/ns/net
        nsenter --net=$here ip link add $CABLE type veth peer name eth0 netns $$
        nsenter --net=$here ip addr add $NEAR/30 dev $CABLE
        nsenter --net=$here ip link set $CABLE up
        ip addr add $FAR/30 dev eth0
        ip link set lo up
        ip link set eth0 up
        exec \"$@\"";

    async fn start(number: u8, cluster: &Cluster, database: &str) -> Self {
        assert!(rustix::process::geteuid().is_root(), "network namespaces take root");
        let net = std::process::id() % 200;
        let (cable, near, far) = (
            format!("semel{}n{number}", std::process::id() % 100_000),
            format!("10.{}.{net}.{}", 77, number * 4 + 1),
            format!("10.{}.{net}.{}", 77, number * 4 + 2),
        );
        let database = database.replace("127.0.0.1", &near);
        let through = ["unshare", "--net", "sh", "-ec", Self::SCRIPT, "sh"].map(str::to_owned).to_vec();
        let address = SocketAddr::new(far.parse().expect("an address"), cluster.port());
        let variables = [("CABLE", cable.as_str()), ("NEAR", &near), ("FAR", &far)];
        let start = Start { variables: &variables, through, address: Some(address), ..at(On::Postgres, &database) };
        Self { semel: Semel::start_as(start, &[]).await, cable }
    }

    fn plug(&self, state: &str) {
        let set = Command::new("ip").args(["link", "set", &self.cable, state]).status();
        assert!(set.expect("ip: run .ci/setup").success());
    }
}

#[tokio::test]
async fn a_host_that_is_cut_off_loses_its_work_and_comes_back() {
    let cluster = Cluster::start(&["fsync=off", "listen_addresses=*"]);
    let database = cluster.database().await;
    cluster.let_in("10.77.0.0/16").await;
    let mut hosts = vec![Apart::start(0, &cluster, &database).await];
    let patient = built("misbehave").with("max_attempts = 2", "max_attempts = 20");
    let patient = patient.with("timeout = \"1s\"", "timeout = \"3s\"\nlease = \"4500ms\"");
    hosts[0].semel.deploy(patient).await;
    hosts.extend(join_all([1, 2, 3].map(|number| Apart::start(number, &cluster, &database))).await);
    let mut all = Vec::new();
    for host in &hosts {
        all.extend(until_it_works(&hosts[0].semel, &host.semel).await);
    }
    let slow = sleep(1000);
    let sent = stream::iter(0..240).map(|_| hosts[0].semel.send("misbehave", &slow)).buffered(16);
    let slow: Vec<String> = sent.collect().await;
    let starts = |host: &Apart| slow.iter().filter(|id| !host.semel.starts(id).is_empty()).count();
    until("work on every host", async || hosts.iter().all(|host| starts(host) > 0).then_some(())).await;
    all.extend(slow);
    let (lost, others) = hosts.split_last().expect("four");
    lost.plug("down");
    let cut = Instant::now();
    // Its claims: what it holds and nobody else renews.
    let holder = "SELECT host FROM semel.queue JOIN semel.messages USING (seq) WHERE state = 'running' AND id = ANY";
    let started: Vec<&String> = all.iter().filter(|id| !lost.semel.starts(id).is_empty()).collect();
    let ids: Vec<String> = started.iter().map(|id| format!("'{id}'")).collect();
    let mine = format!(
        "SELECT host FROM semel.attempts JOIN semel.messages USING (seq) WHERE id IN ({0}) \
                        UNION ALL {holder} (ARRAY[{0}]::text[]) LIMIT 1",
        ids.join(", ")
    );
    let mine: String = in_server(&database, &mine).await;
    let running = format!("SELECT count(*) FROM semel.queue WHERE state = 'running' AND host = '{mine}'");
    let held: i64 = in_server(&database, &running).await;
    until("the end of its claims", async || (in_server::<i64>(&database, &running).await == 0).then_some(())).await;
    let taken_over = cut.elapsed();
    completed_once(&others[0].semel, &all).await;
    assert!(lost.semel.process() > 0, "the host that was cut off has ended");
    lost.plug("up");
    let up = Instant::now();
    all.extend(until_it_works(&others[0].semel, &lost.semel).await);
    let back = up.elapsed();
    completed_once(&others[0].semel, &all).await;
    let rows = others[0].semel.sql("SELECT count(*), count(DISTINCT message_id) FROM misbehaviour").await;
    assert_eq!(rows, json!([[all.len(), all.len()]]));
    let outcomes: Value = {
        let sql = "SELECT coalesce(json_object_agg(outcome, n), '{}')::text FROM \
                   (SELECT outcome, count(*) AS n FROM semel.attempts GROUP BY outcome) AS t";
        serde_json::from_str(&in_server::<String>(&database, sql).await).expect("JSON")
    };
    eprintln!("{held} claims were free {taken_over:?} after the cut, it was back {back:?} after the cable; {outcomes}");
    assert!(held > 0, "it held nothing when it was cut off");
    assert!(taken_over < Duration::from_secs(30), "{taken_over:?} is a hang");
}
