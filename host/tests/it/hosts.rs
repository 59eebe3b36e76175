//! Several hosts on one database: what one of them is told, all of them do.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use futures_util::future::join_all;
use semel::clock::Timestamp;
use semel::flow::Rate;
use semel::message::Usage;
use semel::store::{self, ClaimRequest, Failure, Lane};
use serde_json::{Value, json};
use sqlx::Connection as _;

use crate::cluster::Cluster;
use crate::harness::{Function, On, Semel, built, until};
use crate::servers::on_every_server;
use crate::store::{Bench, lane};

on_every_server!(
    what_one_host_deploys_and_removes_the_other_knows_at_once,
    after_a_deploy_or_a_rollback_no_host_starts_another_version,
    a_pause_holds_on_every_host_until_any_of_them_resumes,
    what_runs_on_another_host_can_be_cancelled_and_ends_there,
    who_waits_on_one_host_gets_the_answer_of_another,
    no_more_run_at_once_on_all_hosts_than_concurrency_says,
    claims_of_several_hosts_never_go_beyond_a_limit,
    starts_on_all_hosts_keep_to_one_rate,
);

/// `misbehave` that nothing but an interruption ends while a test is waiting.
fn endless() -> Function {
    built("misbehave").with(r#"timeout = "1s""#, "timeout = \"300s\"\nlease = \"310s\"")
}

fn second_counter() -> Function {
    built("counter").with(r#"timeout = "2s""#, r#"timeout = "3s""#)
}

/// A host that accepts and steers but runs nothing, and one beside it that does. The first ends with what is returned last.
async fn door_and_worker(on: On, functions: &[&str]) -> (Semel, Semel, tokio::process::Child) {
    let mut door = Semel::start_on(on, functions).await;
    door.stop().await;
    let child = door.serve(&["--no-workers"]).await;
    let worker = door.beside().await;
    (door, worker, child)
}

async fn steer(semel: &Semel, function: &str, what: &str) -> Value {
    semel.post(&format!("/v1/functions/{function}/{what}"), "").send().await.ok()
}

/// Sessions that listen for wake-ups in a database are ended. Returns how many there were.
async fn end_listeners(url: &str) -> i64 {
    let database = url.rsplit('/').next().expect("a database");
    let mut superuser = Cluster::shared().superuser(database).await;
    let end = "SELECT count(*) FILTER (WHERE pg_terminate_backend(pid)) FROM pg_stat_activity
               WHERE datname = current_database() AND query ILIKE 'LISTEN%'";
    let ended = sqlx::query_scalar(end).fetch_one(&mut superuser).await.expect("a count");
    superuser.close().await.expect("an end");
    ended
}

/// When each attempt at these messages was claimed, when it ended, and on which host.
async fn attempts(semel: &Semel, ids: &[String]) -> Vec<(Timestamp, Timestamp, String)> {
    let mut found = Vec::new();
    for id in ids {
        assert_eq!(semel.until_settled(id).await["state"], "completed");
        let time = |at: &Value| serde_json::from_value(at.clone()).expect("a time");
        for attempt in semel.trace(id).await["attempts"].as_array().expect("attempts") {
            let host = attempt["host"].as_str().expect("a host").to_owned();
            found.push((time(&attempt["claimed_at"]), time(&attempt["ended_at"]), host));
        }
    }
    found.sort();
    found
}

/// A 202 or a 404 does not depend on the host that is asked, nor on how soon it hears of a deploy.
async fn what_one_host_deploys_and_removes_the_other_knows_at_once(on: On) {
    let one = Semel::start_on(on, &[]).await;
    let two = one.beside().await;
    for round in 0..5 {
        two.post("/fn/counter", "x").send().await.problem(404);
        two.get("/count/x").await.problem(404);
        one.deploy(built("counter")).await;
        let by_name = two.post("/fn/counter", "x").send().await;
        assert_eq!(by_name.status, 202, "round {round}: {}", by_name.text());
        assert_eq!(two.get("/v1/functions/counter").await.status, 200);
        assert_eq!(two.get("/count/x").await.status, 202);
        assert_eq!(one.request(reqwest::Method::DELETE, "/v1/functions/counter").send().await.status, 200);
        two.post("/fn/counter", "x").send().await.problem(404);
        until("the removal", async || (two.get("/v1/functions/counter").await.status == 404).then_some(())).await;
    }
}

/// After the answer to a deploy or a rollback no host starts the version of before, also one that has not heard of it.
async fn after_a_deploy_or_a_rollback_no_host_starts_another_version(on: On) {
    let one = Semel::start_on(on, &["counter"]).await;
    let two = one.beside().await;
    for round in 0..6 {
        let (here, there) = if round % 2 == 0 { (&one, &two) } else { (&two, &one) };
        let active = match round {
            0..4 => here.deploy(if round % 2 == 0 { second_counter() } else { built("counter") }).await,
            _ => steer(here, "counter", "rollback").await,
        };
        let sent = join_all([here, there, here, there].map(|host| host.send("counter", "x"))).await;
        for id in sent {
            assert_eq!(there.until_settled(&id).await["version"], active["version"], "round {round}");
        }
        let version =
            async || (there.get("/v1/functions/counter").await.ok()["version"] == active["version"]).then_some(());
        until("the other host to know", version).await;
    }
}

async fn a_pause_holds_on_every_host_until_any_of_them_resumes(on: On) {
    let one = Semel::start_on(on, &["counter", "receipts"]).await;
    let two = one.beside().await;
    steer(&one, "counter", "pause").await;
    let waiting = two.send("counter", "x").await;
    for _ in 0..10 {
        assert_eq!(two.call("receipts", "others go on").await.status, 200);
    }
    assert_eq!(one.state(&waiting).await, "available");
    until("the pause", async || (two.get("/v1/functions/counter").await.ok()["paused"] == true).then_some(())).await;
    steer(&two, "counter", "resume").await;
    assert_eq!(one.until_settled(&waiting).await["state"], "completed");
}

/// In WebAssembly, and in a statement: the run can commit no more, and its host is told by the next heartbeat.
async fn what_runs_on_another_host_can_be_cancelled_and_ends_there(on: On) {
    let (door, worker, _child) = door_and_worker(on, &["counter"]).await;
    door.deploy(endless()).await;
    for order in ["loop", "endless-sql"] {
        let id = door.send("misbehave", &json!({ "do": order }).to_string()).await;
        door.until_started(&id, 1).await;
        let cancelled = door.post(&format!("/v1/messages/{id}/cancel"), "").send().await.ok();
        assert_eq!(cancelled["state"], "cancelled", "{order}");
        until(&format!("the end of {order}"), async || {
            let metrics = worker.get("/metrics").await.text();
            metrics.contains("semel_running{function=\"misbehave\"} 0\n").then_some(())
        })
        .await;
        let attempt = door.trace(&id).await["attempts"][0].take();
        assert_eq!((&attempt["outcome"], &attempt["attempt"]), (&json!("cancelled"), &json!(1)), "{order}");
        assert!(!attempt["started_at"].is_null(), "{order}: who ran it adds what it knows: {attempt}");
    }
    assert_eq!(door.call("counter", "next").await.ok()["count"], 1);
    assert_eq!(door.sql("SELECT count(*) FROM misbehaviour").await, json!([[0]]));
}

async fn who_waits_on_one_host_gets_the_answer_of_another(on: On) {
    let (door, _worker, _child) = door_and_worker(on, &["counter", "misbehave"]).await;
    for count in 1..=5 {
        assert_eq!(door.call("counter", "x").await.ok(), json!({ "counter": "x", "count": count }));
    }
    assert!(door.call("misbehave", r#"{"do": "reject"}"#).await.problem(422).starts_with("refused: "));
    assert!(door.call("misbehave", r#"{"do": "error"}"#).await.problem(502).starts_with("failed: "));
}

/// A host that is idle is woken, and one that cannot be woken looks by itself.
#[tokio::test]
async fn what_one_host_accepts_an_idle_one_begins_with_and_without_wake_ups() {
    let (door, worker, _child) = door_and_worker(On::Postgres, &["counter"]).await;
    let delays = async |what: &str| {
        let mut ids = Vec::new();
        for _ in 0..10 {
            let id = door.send("counter", "x").await;
            door.until_settled(&id).await;
            ids.push((door.message(&id).await["created_at"].clone(), id));
        }
        let mut delays = Vec::new();
        for (created, id) in ids {
            let created: Timestamp = serde_json::from_value(created).expect("a time");
            delays.push(attempts(&door, &[id]).await[0].0.since(created));
        }
        delays.sort();
        eprintln!("accepted here, claimed there, {what}: median {:?}, longest {:?}", delays[5], delays[9]);
    };
    delays("woken").await;
    assert!(end_listeners(door.database()).await >= 2, "each of the two listens");
    let sent = door.send("counter", "x").await;
    assert_eq!(door.until_settled(&sent).await["state"], "completed", "by looking");
    end_listeners(door.database()).await;
    worker.deploy(built("receipts")).await;
    assert_eq!(door.call("receipts", "x").await.status, 200, "also what was deployed meanwhile");
    until("somebody to listen again", async || (end_listeners(door.database()).await > 0).then_some(())).await;
    delays("not woken, or not always").await;
}

/// Three hosts, each with room for all of it.
async fn no_more_run_at_once_on_all_hosts_than_concurrency_says(on: On) {
    const MOST: usize = 3;
    let one = Semel::start_on(on, &[]).await;
    one.deploy(built("misbehave").with("[limits]", &format!("[flow]\nconcurrency = {MOST}\n\n[limits]"))).await;
    let others = [one.beside().await, one.beside().await];
    let hosts = [&one, &others[0], &others[1]];
    let order = r#"{"do": "sleep-loop", "millis": 100}"#;
    let ids = join_all((0..30).map(|n| hosts[n % 3].send("misbehave", order))).await;
    let spans = attempts(&one, &ids).await;
    let at_once = |at: Timestamp| spans.iter().filter(|(from, to, _)| *from <= at && at < *to).count();
    let worst = spans.iter().map(|(from, ..)| at_once(*from)).max().expect("attempts");
    assert_eq!(worst, MOST, "at once, of {MOST} that may and should");
    let ran: BTreeSet<_> = spans.iter().map(|(.., host)| host).collect();
    eprintln!("{} of three hosts ran them", ran.len());
}

/// Three stores claim at the same moment, again and again, whatever they can get.
async fn claims_of_several_hosts_never_go_beyond_a_limit(on: On) {
    const MOST: usize = 3;
    let bench = Bench::new(on).await;
    for number in 0..60 {
        bench.enqueue(&number.to_string()).await;
    }
    let (running, worst) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let host = async || {
        let store = store::open(bench.url()).await.expect("a store");
        let mut done = 0;
        while store.counts().await.expect("counts")[0].available > 0 {
            let lane = Lane { concurrency: Some(3), ..lane() };
            let request = ClaimRequest { lanes: vec![lane], limit: 10, suspects: false, host: "test".into() };
            let claimed = store.claim(request).await.expect("a claim");
            let now = running.fetch_add(claimed.len(), SeqCst) + claimed.len();
            worst.fetch_max(now, SeqCst);
            tokio::time::sleep(Duration::from_millis(5)).await;
            for claimed in &claimed {
                running.fetch_sub(1, SeqCst); // Before its end is stored: never too late.
                let end = Failure { kind: "failed", message: "test".into(), retry_after: None };
                assert_eq!(store.settle(&claimed.claim, end, Usage::default()).await, Ok(true));
            }
            done += claimed.len();
        }
        done
    };
    let done = tokio::join!(host(), host(), host());
    assert_eq!(worst.into_inner(), MOST, "at once, of {MOST} that may and should");
    assert_eq!(done.0 + done.1 + done.2, 60);
    assert!(done.0 > 0 && done.1 > 0 && done.2 > 0, "not all of them had a part: {done:?}");
}

/// The bound of the algorithm: in any span of time no more starts than the rate gives, and those that may come at once.
async fn starts_on_all_hosts_keep_to_one_rate(on: On) {
    let one = Semel::start_on(on, &[]).await;
    one.deploy(built("counter").with("[limits]", "[flow]\nrate = \"10/s\"\n\n[limits]")).await;
    let others = [one.beside().await, one.beside().await];
    let hosts = [&one, &others[0], &others[1]];
    let ids = join_all((0..25).map(|n| hosts[n % 3].send("counter", "x"))).await;
    let claims = attempts(&one, &ids).await;
    let rate = Rate::new(10, Duration::from_secs(1)).expect("a rate");
    for (first, (from, ..)) in claims.iter().enumerate() {
        for (last, (to, ..)) in claims.iter().enumerate().skip(first) {
            // The clock is read a little before the claim; one more for that.
            let most = rate.room(*from, *from) + u32::try_from(to.since(*from).as_micros() / 100_000).expect("few") + 1;
            assert!(last - first < most as usize, "{} starts in {:?}", last - first + 1, to.since(*from));
        }
    }
    let span = claims[24].0.since(claims[0].0);
    eprintln!("25 starts at 10/s on three hosts in {span:?}");
}
