//! Decisions that meet each other: groups, redrives, removals and deploys in orders that no request can force, asked of the
//! store directly.

use std::time::Duration;

use semel::flow::Rate;
use semel::message::{Claim, Event, State, Usage};
use semel::store::{Decided, Deployment, Enqueued, Failure, Lane, Target};
use sqlx::{ConnectOptions as _, Connection as _};

use crate::harness::{On, on_every_store};
use crate::store::{Bench, deployment, lane};

on_every_store!(
    a_removal_that_is_broken_off_leaves_no_group_behind,
    order_that_is_asked_for_late_holds_from_then_on,
    redriving_many_takes_each_once,
    a_suspect_does_not_wait_for_its_rate,
    after_a_removal_there_is_no_version_to_go_back_to
);

fn serial(serial: bool) -> Deployment {
    let mut deployment = Deployment { migrations: vec![], manifest: format!("serial = {serial}"), ..deployment("f") };
    deployment.activation.serial = serial;
    deployment
}

impl Bench {
    async fn deploy(&self, deployment: Deployment) -> i64 {
        self.store.deploy(deployment).await.expect("a deploy").version
    }

    /// A message of the group `g`.
    async fn accept(&self, event: Event) -> String {
        let event = Event { topic: "fn/f".into(), group: Some("g".into()), ..event };
        match self.store.enqueue(event, Target::Function("f".into()), None).await.expect("a working store") {
            Enqueued::Accepted(ids) => ids[0].clone(),
            other => panic!("not accepted: {other:?}"),
        }
    }

    async fn send(&self, id: &str) -> String {
        self.accept(Event { id: id.into(), ..Event::default() }).await
    }

    /// The ids of what can be claimed now.
    async fn claimable(&self) -> Vec<(String, Claim)> {
        let claimed = self.claim(lane(), false).await;
        claimed.into_iter().map(|claimed| (claimed.message.id, claimed.claim)).collect()
    }

    async fn end(&self, claim: &Claim, retry_after: Option<Duration>) {
        let end = Failure { kind: "failed", message: "test".into(), retry_after };
        assert_eq!(self.store.settle(claim, end, Usage::default()).await, Ok(true));
    }
}

/// Its first message became dead with the removal, and then the function was there again: nobody ends before the second.
async fn a_removal_that_is_broken_off_leaves_no_group_behind(on: On) {
    let bench = Bench::new(on).await;
    bench.deploy(serial(true)).await;
    let delay = Duration::from_secs(3600);
    let first = bench.accept(Event { id: "first".into(), priority: 1, delay, ..Event::default() }).await;
    let second = bench.send("second").await;
    bench.send("third").await;
    assert!(bench.claimable().await.is_empty(), "the first one is not due");
    assert_eq!(bench.store.remove("f").await, Ok(Some(3)));
    assert_eq!(bench.store.sweep(1).await, Ok(1));
    assert_eq!(bench.state(&first).await, State::Dead);
    bench.deploy(serial(true)).await;
    let next = bench.claimable().await;
    assert_eq!(next.iter().map(|(id, _)| id).collect::<Vec<_>>(), [&second]);
}

/// Two of a group run when order is asked for: from then on no third one beside them, and not the first one again.
async fn order_that_is_asked_for_late_holds_from_then_on(on: On) {
    let bench = Bench::new(on).await;
    bench.deploy(serial(false)).await;
    let first = bench.send("first").await;
    bench.send("second").await;
    let running = bench.claimable().await;
    assert_eq!(running.len(), 2);
    bench.deploy(serial(true)).await;
    let third = bench.send("third").await;
    bench.end(&running[0].1, Some(Duration::ZERO)).await;
    assert!(bench.claimable().await.is_empty(), "the second one still runs");
    bench.end(&running[1].1, None).await;
    for id in [&first, &third] {
        let next = bench.claimable().await;
        assert_eq!(next.iter().map(|(id, _)| id).collect::<Vec<_>>(), [id]);
        bench.end(&next[0].1, None).await;
    }
}

/// Those that fail again while the others are still being redriven.
async fn redriving_many_takes_each_once(on: On) {
    let bench = Bench::new(on).await;
    let mut ids = Vec::new();
    for number in 0..3 {
        ids.push(bench.send(&number.to_string()).await);
    }
    for (_, claim) in bench.claimable().await {
        bench.end(&claim, None).await;
    }
    let (mut redriven, mut after) = (Vec::new(), 0);
    while let [(seq, _)] = bench.store.redrivable("f", State::Dead, after, 1).await.expect("a working store")[..] {
        let some = bench.store.redrive_some("f", State::Dead, vec![seq]).await.expect("a working store");
        assert_eq!(some, [seq]);
        let (id, claim) = bench.claimable().await.remove(0);
        bench.end(&claim, None).await;
        redriven.push(id);
        after = seq;
    }
    assert_eq!(redriven, ids);
}

/// Nothing else may start while it waits, so it does not wait for a rate.
async fn a_suspect_does_not_wait_for_its_rate(on: On) {
    let bench = Bench::new(on).await;
    let rate = Rate::new(1, Duration::from_secs(3600));
    let lane = || Lane { rate, ..lane() };
    bench.send("one").await;
    assert_eq!(bench.claim(lane(), false).await.len(), 1);
    let bench = bench.restart().await;
    let as_of = bench.store.now().await.expect("a clock");
    assert!(bench.store.recover(as_of, vec!["f".into()]).await.expect("recovery").suspects);
    assert_eq!(bench.claim(lane(), true).await.len(), 1);
    bench.send("two").await;
    assert_eq!(bench.claim(lane(), false).await.len(), 0, "everybody else does");
}

async fn after_a_removal_there_is_no_version_to_go_back_to(on: On) {
    let bench = Bench::new(on).await;
    let running = bench.send("running").await;
    let claim = bench.claim_one(lane()).await;
    assert_eq!(bench.store.remove("f").await, Ok(Some(0)));
    assert_eq!(bench.store.sweep(10).await, Ok(0));
    assert_eq!(bench.store.redrive(&running).await, Ok(Decided::Refused(State::Running)));
    assert_eq!(bench.deploy(serial(true)).await, 2);
    let versions = bench.store.versions("f").await.expect("versions");
    assert_eq!(versions[0].previous, None, "nothing was active before it");
    bench.end(&claim, None).await;
}

/// A file of the version before: what waits there goes on, in order where that is asked for now, and what ended can be
/// redriven.
#[tokio::test]
async fn a_file_of_the_version_before_goes_on() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("test.db");
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(&path).create_if_missing(true);
    let mut file = options.connect().await.expect("a file");
    sqlx::raw_sql(include_str!("../../../migrations/sqlite/0001_queue.sql"))
        .execute(&mut file)
        .await
        .expect("version 1");
    let rows = "PRAGMA application_id = 1399156076; PRAGMA user_version = 1;
        INSERT INTO semel_store VALUES (1, 7, zeroblob(32), 0);
        INSERT INTO semel_components VALUES ('digest', x'00');
        INSERT INTO semel_versions VALUES ('f', 1, 'digest', 'name = \"f\"', 'finish-once', 'transactional', 0);
        INSERT INTO semel_functions VALUES ('f', 'app', 1);
        INSERT INTO semel_messages VALUES (1, 'dead', 'e1', 'f', 'fn/f', 'g', NULL, '[]', x'', 0, 0, 0),
            (2, 'ran', 'e2', 'f', 'fn/f', 'g', NULL, '[]', x'', 0, 0, 0),
            (3, 'waits', 'e3', 'f', 'fn/f', 'g', NULL, '[]', x'', 0, 0, 0);
        INSERT INTO semel_history (seq, function, state, attempt, fence, version, available_at, ended_at)
            VALUES (1, 'f', 'dead', 5, 5, 1, 0, 0);
        INSERT INTO semel_queue (seq, function, state, priority, available_at, due, attempt, fence, token_hash, epoch,
            host, version, contract, max_attempts, claimed_at, lease_until)
            VALUES (2, 'f', 'running', 0, 0, 1, 1, 1, x'00', 7, 'h', 1, 'finish-once', 3, 0, 9000000000000000);
        INSERT INTO semel_queue (seq, function, state, priority, available_at, due) VALUES (3, 'f', 'available', 0, 0, 1);
        INSERT INTO semel_keys VALUES ('f', 'key', x'00', 'dead', 9000000000000000);";
    sqlx::raw_sql(rows).execute(&mut file).await.expect("rows");
    file.close().await.expect("an end");

    let bench = Bench::over(format!("sqlite://{}/test.db", folder.path().display()), folder).await;
    assert_eq!(bench.deploy(serial(true)).await, 2);
    assert_eq!(bench.store.redrive("dead").await, Ok(Decided::Done));
    bench.recover().await.expect("recovery");
    let one = |claimed: Vec<(String, Claim)>| <[(String, Claim); 1]>::try_from(claimed).expect("one at a time");
    let [(id, claim)] = one(bench.claimable().await);
    assert_eq!((id.as_str(), claim.attempt, claim.fence, claim.attempts_counted()), ("dead", 6, 6, 1));
    bench.end(&claim, None).await;
    assert!(bench.claimable().await.is_empty(), "the next one is a suspect");
    let suspect = bench.claim(lane(), true).await.remove(0);
    assert_eq!((suspect.message.id.as_str(), suspect.claim.attempt), ("ran", 2));
    bench.end(&suspect.claim, None).await;
    let [(id, _)] = one(bench.claimable().await);
    assert_eq!(id, "waits");
}
