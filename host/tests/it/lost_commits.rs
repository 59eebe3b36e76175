//! Answers of COMMIT that are lost, on servers: before the server hears of it, after it has committed, and on a line that
//! swallows everything. `Queue::resolve` finds out, and nobody outside sees a message twice or not at all.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use semel::experiment::proxy::{Fault, Fired, Of, Proxy};
use semel::message::{Claim, Claimed, State, Usage};
use semel::store::{Commit, Failure, Known, Lane};
use serde_json::json;

use crate::faults::brisk;
use crate::harness::{On, Semel, Start, built, until};
use crate::servers::{database, on_every_server};
use crate::store::{Bench, deployment, lane};

on_every_server!(
    a_lost_answer_of_a_commit_is_found_out,
    a_message_whose_acceptance_is_unknown_is_refused_and_accepted_once,
    whatever_answer_a_host_loses_effects_are_there_once,
);

/// Messages of one function at once.
const BATCH: u32 = 40;

const FAULTS: [Fault; 3] = [Fault::Before, Fault::After, Fault::BlackHole];

/// A store behind a proxy.
async fn behind_a_proxy(on: On) -> (Bench, Proxy) {
    let database = database(on).await;
    let proxy = Proxy::start(&database).await.expect("a proxy");
    let bench = Bench::over(proxy.url().to_owned(), tempfile::tempdir().expect("a folder")).await;
    bench.store.deploy(deployment("f")).await.expect("a deploy");
    (bench, proxy)
}

/// How often each fault is tried, a multiple of ten; `make torture` asks for more.
fn rounds() -> u32 {
    std::env::var("LOST_COMMITS").map_or(10, |rounds| rounds.parse().expect("LOST_COMMITS is a number"))
}

fn fired(fault: Fault, times: u64) -> Fired {
    let none = Fired::default();
    match fault {
        Fault::Before => Fired { before: times, ..none },
        Fault::After => Fired { after: times, ..none },
        Fault::BlackHole => Fired { black_holes: times, ..none },
    }
}

/// Commits, with a row or with the acknowledgement alone, and asks if the answer was lost.
async fn commit_and_resolve(bench: &Bench, claim: &Claim, writes: bool) -> (Commit, Known, Duration) {
    let began = Instant::now();
    let commit = if writes {
        bench.write_and_commit(claim).await
    } else {
        let mut session = bench.store.session();
        session.enter(claim);
        session.leave(None, Usage::default());
        session.commit().await
    };
    let known = match commit.known() {
        Some(known) => known,
        None => bench.store.resolve(claim).await.expect("an answer in time"),
    };
    (commit, known, began.elapsed())
}

async fn a_lost_answer_of_a_commit_is_found_out(on: On) {
    join_all(FAULTS.map(|fault| found_out(on, fault))).await;
}

async fn found_out(on: On, fault: Fault) {
    let (bench, proxy) = behind_a_proxy(on).await;
    let long = Lane { lease: Duration::from_secs(60), max_attempts: 1000, ..lane() };
    let (mut written, mut longest) = (0, Duration::ZERO);
    let rounds = rounds();
    for batch in 0..rounds.div_ceil(10) {
        let size = 10.min(rounds - batch * 10);
        let ids = join_all((0..size).map(|n| {
            let (bench, id) = (&bench, format!("{batch}-{n}"));
            async move { bench.enqueue(&id).await }
        }))
        .await;
        let claimed = bench.claim(long.clone(), false).await;
        assert_eq!(claimed.len(), ids.len());
        proxy.next(Of::Acknowledgement, fault, size);
        let ends = claimed.iter().enumerate().map(|(n, one)| commit_and_resolve(&bench, &one.claim, n % 2 == 0));
        let ends = join_all(ends);
        for (n, (commit, known, time)) in ends.await.into_iter().enumerate() {
            assert_eq!(commit, Commit::Unknown, "{fault:?} {n}");
            let (expected, state) = match fault {
                Fault::After => (Known::Committed, State::Completed),
                Fault::Before | Fault::BlackHole => (Known::RolledBack, State::Running),
            };
            assert_eq!((known, bench.state(&claimed[n].message.id).await), (expected, state), "{fault:?} {n}");
            written += i64::from(n % 2 == 0);
            longest = longest.max(time);
        }
        if fault != Fault::After {
            again(&bench, &claimed, &long).await;
        }
        proxy.restore(); // Commits that were held arrive now, and find nobody.
    }
    assert_eq!(proxy.fired(), fired(fault, u64::from(rounds)));
    let counts = bench.store.counts().await.expect("counts");
    assert_eq!((bench.rows().await, counts[0].completed), (written, u64::from(rounds)), "{fault:?}");
    assert!(longest < Duration::from_secs(30), "{fault:?}: {longest:?} is a hang");
    eprintln!("{fault:?}: {:?}, the longest took {longest:?}", proxy.fired());
}

/// What was rolled back runs again, by whoever claims it next, and commits.
async fn again(bench: &Bench, lost: &[Claimed], lane: &Lane) {
    for Claimed { claim, .. } in lost {
        let end = Failure { kind: "doomed", message: "test".into(), retry_after: Some(Duration::ZERO) };
        assert!(bench.store.settle(claim, end, Usage::default()).await.expect("a working store"));
    }
    let claimed = bench.claim(lane.clone(), false).await;
    assert_eq!(claimed.len(), lost.len());
    for (n, claimed) in claimed.iter().enumerate() {
        let (commit, ..) = commit_and_resolve(bench, &claimed.claim, n % 2 == 0).await;
        assert_eq!(commit, Commit::Committed);
    }
}

/// No 2xx for what is not known to be there, and the same key later makes one message.
async fn a_message_whose_acceptance_is_unknown_is_refused_and_accepted_once(on: On) {
    let proxy = Proxy::start(&database(on).await).await.expect("a proxy");
    let semel = Semel::start_as(Start { on, database: Some(proxy.url()), ..Start::default() }, &["counter"]).await;
    let mut ids = BTreeSet::new();
    for round in 0..rounds() {
        for fault in FAULTS {
            let key = format!("{fault:?}-{round}");
            let send = || semel.post("/count/visits", "").key(&key).send();
            let before = proxy.fired();
            proxy.next(Of::Enqueue, fault, 1);
            let lift = async {
                until(&format!("the fault {key}"), async || (proxy.fired() != before).then_some(())).await;
                if fault == Fault::BlackHole {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    proxy.cut(); // Else it would be thirty seconds.
                }
            };
            let (refused, ()) = tokio::join!(send(), lift);
            refused.problem(503);
            let accepted = send().await;
            assert_eq!(accepted.status, 202, "{}", accepted.text());
            assert_eq!(accepted.json()["duplicate"], fault == Fault::After, "{fault:?}");
            assert_eq!(send().await.id(), accepted.id());
            ids.insert(accepted.id());
        }
    }
    let expected = u64::from(rounds()) * 3;
    assert_eq!(proxy.fired().all(), expected);
    assert_eq!(ids.len() as u64, expected);
    until("all of them", async || (semel.count("counter", "completed").await == expected).then_some(())).await;
    let messages: i64 = semel.in_store("SELECT count(*) FROM semel_messages WHERE function = 'counter'").await;
    assert_eq!(messages.cast_unsigned(), expected);
    assert_eq!(semel.sql("SELECT n FROM counters").await, json!([[expected]]));
}

/// Points 10b and 26, in a host: whatever is lost, each message has its effects once, or is in doubt without any.
async fn whatever_answer_a_host_loses_effects_are_there_once(on: On) {
    let proxy = Proxy::start(&database(on).await).await.expect("a proxy");
    let start = Start { on, database: Some(proxy.url()), ..Start::default() };
    let semel = Semel::start_as(start, &[]).await;
    let often = built("counter")
        .with("[limits]", "[retry]\nmax_attempts = 50\nbackoff = { initial = \"50ms\", max = \"1s\" }\n[limits]");
    semel.deploy(brisk(often, "2s")).await;
    let patient = built("misbehave");
    semel.deploy(patient.clone()).await;
    semel.deploy(brisk(patient.named("once"), "1s").contract("begin-once")).await;
    let seed = seed();
    eprintln!("seed {seed}");
    let shares =
        |of: Of, cut: f64, held: f64| [(of, Fault::Before, cut), (of, Fault::After, cut), (of, Fault::BlackHole, held)];
    proxy.at_random(seed, &[shares(Of::Acknowledgement, 0.15, 0.06), shares(Of::Begin, 0.1, 0.03)].concat());
    proxy.next(Of::Claim, Fault::Before, 1);
    proxy.next(Of::Claim, Fault::After, 1);
    let messages = rounds() * 4;
    let mut completed = 0;
    for _ in 0..messages / BATCH {
        completed += each_has_its_effects_once(&semel).await;
    }
    let fired = proxy.fired();
    eprintln!("{fired:?}, {completed} of {messages} begin-once messages completed");
    assert!(fired.before > 0 && fired.after > 0 && fired.black_holes > 0, "{fired:?}");
    proxy.at_random(seed, &[]);
    proxy.restore();
    assert_eq!(semel.sql("SELECT n FROM counters").await, json!([[messages]]));
    assert_eq!(semel.sql("SELECT count(*) FROM misbehaviour").await, json!([[completed]]));
}

/// So many messages of each contract. Returns how many that begin once were completed.
async fn each_has_its_effects_once(semel: &Semel) -> u64 {
    let send = async |function: &str, body: &str| semel.send(function, body).await;
    let counted = join_all((0..BATCH).map(|_| send("counter", "visits"))).await;
    let once = join_all((0..BATCH).map(|_| send("once", r#"{"do": "write"}"#))).await;
    let mut completed = 0;
    for id in counted.iter().chain(&once) {
        let message = semel.until_settled(id).await;
        let starts = semel.starts(id).len();
        match message["state"].as_str().expect("a state") {
            "completed" => completed += u64::from(once.contains(id)),
            "in-doubt" | "dead" if once.contains(id) => {}
            other => panic!("{other}: {message}"),
        }
        assert!(starts <= 1 || counted.contains(id), "begun once, started {starts} times");
        let outcomes = semel.outcomes(id).await;
        let ends = outcomes.iter().filter(|outcome| *outcome == "completed").count();
        assert_eq!(ends, usize::from(message["state"] == "completed"), "{outcomes:?}");
    }
    completed
}

fn seed() -> u64 {
    std::env::var("SEED").map_or_else(|_| rand::random(), |seed| seed.parse().expect("SEED is a number"))
}
