//! What the driver of Postgres does that nobody would expect, and that it does no harm here. The table of these facts is in
//! `ARCHITECTURE.md`.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use semel::message::{Event, State, Usage};
use semel::store::{Commit, Enqueued, SqlError, Target, Value};
use sqlx::Connection as _;
use sqlx::postgres::PgConnection;

use crate::cluster::Cluster;
use crate::harness::{On, until};
use crate::store::{Bench, bounds, deployment, lane};

/// A store, and a session of the superuser's in its database.
async fn watched() -> (Bench, PgConnection) {
    let database = Cluster::shared().database().await;
    let bench = Bench::over(database.clone(), tempfile::tempdir().expect("a folder")).await;
    bench.store.deploy(deployment("f")).await.expect("a deploy");
    let name = database.rsplit('/').next().expect("a name");
    (bench, Cluster::shared().superuser(name).await)
}

/// Waits so long for something and then drops it, to the microsecond: a timer is coarser than what is waited for here.
/// False if it was done before.
async fn goes_away(work: impl Future, after: Duration) -> bool {
    let began = Instant::now();
    let patience = async {
        while began.elapsed() < after {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! { biased; _ = work => false, () = patience => true }
}

/// COMMIT of a transaction in which a statement failed says ok, and undoes it.
#[tokio::test]
async fn a_commit_of_a_failed_transaction_is_no_commit() {
    let bench = Bench::new(On::Postgres).await;
    let id = bench.enqueue("one").await;
    let claim = bench.claim_one(lane()).await;
    let mut session = bench.store.session();
    session.enter(&claim);
    session.query("INSERT INTO scratch VALUES (1)".into(), vec![], bounds()).await.expect("an insert");
    let failed = session.query("INSERT INTO scratch VALUES (1 / 0)".into(), vec![], bounds()).await;
    assert!(matches!(failed, Err(SqlError::Database(_))), "{failed:?}");
    session.leave(None, Usage::default());
    assert_eq!(session.commit().await, Commit::RolledBack);
    assert_eq!((bench.rows().await, bench.state(&id).await), (0, State::Running));
}

/// A `begin`, or anything else, that is dropped half-way leaves the driver's session in a transaction that the next one who
/// borrows it knows nothing of.
#[tokio::test]
async fn whoever_goes_away_half_way_leaves_no_session_in_a_transaction() {
    const ENOUGH: usize = 100;
    let (bench, mut superuser) = watched().await;
    let (mut times, mut dropped) = (0_u64, 0);
    let began = Instant::now();
    // Most of them are, on any machine; a few at once, since whoever waits for others in the pool has nothing to leave.
    while dropped < ENOUGH && times < 6000 {
        let sends = (times..times + 30).map(|n| {
            let (store, after) = (&bench.store, Duration::from_micros(rand::random_range(0..1500)));
            async move {
                tokio::time::sleep(Duration::from_millis(n % 30 * 2)).await;
                let event = Event { id: format!("event {n}"), topic: "fn/f".into(), ..Event::default() };
                match n % 3 {
                    0 => goes_away(store.enqueue(event, Target::Function("f".into()), None), after).await,
                    1 => goes_away(store.check(), after).await,
                    _ => {
                        let mut session = store.session();
                        let sql = "INSERT INTO scratch SELECT 1 FROM pg_sleep(0.002)";
                        goes_away(session.query(sql.into(), vec![], bounds()), after).await
                    }
                }
            }
        });
        dropped += join_all(sends).await.into_iter().filter(|dropped| *dropped).count();
        times += 30;
    }
    assert!(dropped >= ENOUGH, "only {dropped} of {times} went away half-way");
    let open =
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state LIKE '%transaction%'";
    until("the end of what was begun", async || {
        let open: i64 = sqlx::query_scalar(open).fetch_one(&mut superuser).await.expect("a count");
        (open == 0).then_some(())
    })
    .await;
    // Whoever borrows these sessions now is in a transaction of its own: what it commits, everybody sees at once.
    let later = "SELECT count(*) FROM semel.messages WHERE event LIKE 'later%'";
    for n in 0..40 {
        let ids = join_all((0..10).map(|m| {
            let event = Event { id: format!("later {n} {m}"), topic: "fn/f".into(), ..Event::default() };
            bench.store.enqueue(event, Target::Function("f".into()), None)
        }));
        for accepted in ids.await {
            assert!(matches!(accepted, Ok(Enqueued::Accepted(_))), "{accepted:?}");
        }
        let seen: i64 = sqlx::query_scalar(later).fetch_one(&mut superuser).await.expect("a count");
        assert_eq!(seen, 10 * (n + 1));
    }
    assert_eq!(bench.rows().await, 0, "a session that was dropped has committed");
    eprintln!("{dropped} of {times} went away half-way, in {:?}", began.elapsed());
}

/// DISCARD ALL takes the driver's prepared statements away under it, unless the driver forgot them before.
#[tokio::test]
async fn a_session_is_used_again_and_nothing_is_left_in_it() {
    let bench = Bench::new(On::Postgres).await;
    let mut processes = Vec::new();
    for n in 0..5 {
        bench.enqueue(&format!("message {n}")).await;
        let claim = bench.claim_one(lane()).await;
        let mut session = bench.store.session();
        session.enter(&claim);
        let mut one = async |sql: &str| {
            let rows = session.query(sql.into(), vec![Value::Int64(n)], bounds()).await.expect(sql);
            rows.rows[0][0].clone()
        };
        for _ in 0..3 {
            assert_eq!(one("SELECT $1::bigint + 1").await, Value::Int64(n + 1));
        }
        let left = one("SELECT coalesce(current_setting('app.left', true), '') FROM (SELECT $1::bigint) AS t").await;
        assert_eq!(left, Value::Text(String::new()), "left by the run before");
        one("SELECT set_config('app.left', 'something', false) FROM (SELECT $1::bigint) AS t").await;
        one("SELECT pg_advisory_lock($1)").await;
        processes.push(one("SELECT pg_backend_pid() FROM (SELECT $1::bigint) AS t").await);
        session.leave(None, Usage::default());
        assert_eq!(session.commit().await, Commit::Committed);
        tokio::time::sleep(Duration::from_millis(50)).await; // Till the session is back.
    }
    assert!(processes.iter().all(|process| *process == processes[0]), "no session was used again: {processes:?}");
}

/// The server has ended a session that waits in the pool: whoever borrows it does not notice.
#[tokio::test]
async fn a_session_that_the_server_ended_is_replaced() {
    let (bench, mut superuser) = watched().await;
    for round in 0..3 {
        bench.enqueue(&format!("message {round}")).await;
        let claim = bench.claim_one(lane()).await;
        assert_eq!(bench.write_and_commit(&claim).await, Commit::Committed);
        let end = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
                   WHERE datname = current_database() AND pid <> pg_backend_pid()";
        let ended: i64 = sqlx::query_scalar(end).fetch_one(&mut superuser).await.expect("a count");
        assert!(ended > 1, "{ended} sessions");
    }
    superuser.close().await.expect("an end");
}
