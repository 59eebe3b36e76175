//! The ledger of outside calls: what is intended is durable before anybody goes on, and nothing is forgotten half-way.

use std::collections::BTreeMap;
use std::time::Duration;

use semel::message::{Claim, State, Usage};
use semel::store::{CallEnd, CallFilter, CallId, CallState, Commit, Error, Failure, Intent, Retention, by_call};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _};

use crate::harness::{On, on_every_store};
use crate::store::{Bench, lane};

on_every_store!(
    a_call_is_committed_before_it_is_made_and_ends_once,
    who_has_lost_the_claim_calls_nobody,
    what_a_claim_leaves_open_is_unknown,
    what_a_dead_host_left_open_is_unknown_and_never_missing,
    a_page_has_each_call_once_with_all_its_attempts,
    who_may_have_called_is_known,
    calls_are_forgotten_with_their_messages,
);

/// What another process sees, with a connection of its own.
async fn states(bench: &Bench) -> Vec<String> {
    if bench.url().starts_with("postgres") {
        let mut session = sqlx::PgConnection::connect(bench.url()).await.expect("a session");
        let states = sqlx::query_scalar("SELECT state FROM semel.calls ORDER BY id").fetch_all(&mut session).await;
        return states.expect("the calls");
    }
    if bench.url().starts_with("mysql") {
        let mut session = sqlx::MySqlConnection::connect(bench.url()).await.expect("a session");
        let states = sqlx::query_scalar("SELECT state FROM calls ORDER BY id").fetch_all(&mut session).await;
        return states.expect("the calls");
    }
    let options = SqliteConnectOptions::new().filename(bench.folder.path().join("test.db.ledger")).read_only(true);
    let mut file = options.connect().await.expect("a second connection");
    sqlx::query_scalar("SELECT state FROM semel_calls ORDER BY id").fetch_all(&mut file).await.expect("the calls")
}

/// A message that runs, and its first call.
async fn running(bench: &Bench, name: &str) -> (Claim, Intent) {
    let message = bench.enqueue(name).await;
    let claim = bench.claim_one(lane()).await;
    let call = intent(&message, &claim);
    (claim, call)
}

/// The next attempt at it, and the same call.
async fn again(bench: &Bench, (claim, call): (Claim, Intent)) -> (Claim, Intent) {
    let end = Failure { kind: "failed", message: "test".into(), retry_after: Some(Duration::ZERO) };
    assert!(bench.store.settle(&claim, end, Usage::default()).await.expect("a retry"));
    let claim = bench.claim_one(lane()).await;
    let call = intent(&call.message, &claim);
    (claim, call)
}

fn intent(message: &str, claim: &Claim) -> Intent {
    Intent {
        message: message.into(),
        function: "f".into(),
        fence: claim.fence,
        attempt: claim.attempt,
        ordinal: 0,
        method: "POST".into(),
        url: "https://api.example.com/mails".into(),
        key: "key".into(),
    }
}

async fn a_call_is_committed_before_it_is_made_and_ends_once(on: On) {
    let bench = Bench::new(on).await;
    let (ledger, (_, call)) = (&bench.store, running(&bench, "m").await);
    let mut calls = Vec::new();
    for ordinal in 0..4 {
        calls.push(ledger.intend(Intent { ordinal, ..call.clone() }).await.expect("a row"));
    }
    assert_eq!(states(&bench).await, ["intended"; 4]);
    ledger.finish(calls[0], CallEnd::Done(503)).await.expect("an end");
    ledger.finish(calls[1], CallEnd::Failed("refused".into())).await.expect("an end");
    ledger.finish(calls[2], CallEnd::Unknown("no answer".into())).await.expect("an end");
    assert_eq!(states(&bench).await, ["done", "failed", "unknown", "intended"]);
    for (call, end) in [(calls[0], CallEnd::Unknown("x".into())), (calls[1], CallEnd::Done(200))] {
        assert!(ledger.finish(call, end).await.is_err(), "what is known stays known");
    }
    ledger.finish(calls[2], CallEnd::Done(200)).await.expect("what was unknown may become known");
    let found = ledger.calls(&call.message, 10).await.expect("calls");
    assert_eq!(found.iter().map(|call| call.status).collect::<Vec<_>>(), [Some(503), None, Some(200), None]);
    assert_eq!(found[1].detail.as_deref(), Some("refused"));
    let first = ledger.calls(&call.message, 2).await.expect("calls");
    assert_eq!(first.iter().map(|call| call.intent.ordinal).collect::<Vec<_>>(), [0, 1]);
    assert_eq!((found[3].intent.ordinal, found[3].ended_at), (3, None));
    assert!(found[0].ended_at.expect("an end") >= found[0].intended_at);
}

/// What the ledger does not take is not sent: whoever has lost the message calls nobody for it any more.
async fn who_has_lost_the_claim_calls_nobody(on: On) {
    let bench = Bench::new(on).await;
    let (_, lost) = running(&bench, "m").await;
    bench.end_leases(Duration::MAX).await;
    assert_eq!(bench.recover().await.expect("recovery").freed, 1);
    assert_eq!(bench.store.intend(lost.clone()).await, Err(Error::Fenced), "it waits");
    let claim = bench.claim(lane(), true).await.remove(0).claim;
    assert_eq!(bench.store.intend(lost.clone()).await, Err(Error::Fenced), "another attempt runs");
    bench.store.intend(intent(&lost.message, &claim)).await.expect("a row");
    assert_eq!(bench.write_and_commit(&claim).await, Commit::Committed);
    assert_eq!(bench.store.intend(intent(&lost.message, &claim)).await, Err(Error::Fenced), "it is over");
    let nobody = Intent { message: "nobody's".into(), ..lost };
    assert_eq!(bench.store.intend(nobody).await, Err(Error::Fenced));
    assert_eq!(states(&bench).await, ["intended"]);
}

async fn what_a_claim_leaves_open_is_unknown(on: On) {
    let bench = Bench::new(on).await;
    let ledger = &bench.store;
    let (claim, call) = running(&bench, "m").await;
    let fence = claim.fence;
    let done = ledger.intend(call.clone()).await.expect("a row");
    ledger.finish(done, CallEnd::Done(200)).await.expect("an end");
    ledger.intend(Intent { ordinal: 1, ..call.clone() }).await.expect("a row");
    let (_, call) = again(&bench, (claim, call)).await;
    ledger.intend(Intent { ordinal: 1, ..call.clone() }).await.expect("a row");
    let (_, other) = running(&bench, "n").await;
    ledger.intend(other).await.expect("a row");
    assert_eq!(ledger.abandon(&call.message, fence, "the run was cancelled").await.expect("an update"), 1);
    assert_eq!(states(&bench).await, ["done", "unknown", "intended", "intended"]);
    let calls = ledger.calls(&call.message, 10).await.expect("calls");
    let bounds: Vec<_> = by_call(&calls).iter().map(|call| call.happened.to_string()).collect();
    assert_eq!(bounds, ["happened once", "happened 0 to 2 times"]);
}

/// On SQLite the next host knows by holding the file; on a server others know by the end of the lease, and only then.
async fn what_a_dead_host_left_open_is_unknown_and_never_missing(on: On) {
    let bench = Bench::new(on).await;
    let (_, call) = running(&bench, "a").await;
    let id = call.message.clone();
    let call = bench.store.intend(call).await.expect("a row");
    bench.recover().await.expect("recovery");
    assert_eq!(states(&bench).await, ["intended"], "its host lives");
    if on.is_shared() {
        let (url, folder) = (bench.url().to_owned(), tempfile::tempdir().expect("a temporary folder"));
        let other = Bench::over(url, folder).await;
        other.recover().await.expect("recovery");
        assert_eq!(states(&bench).await, ["intended"], "another host has merely started");
    }
    let bench = bench.restart().await;
    assert_eq!(bench.recover().await.expect("recovery").freed, 1);
    assert_eq!((states(&bench).await, bench.state(&id).await), (vec!["unknown".to_owned()], State::Available));
    let found = bench.store.calls(&id, 10).await.expect("calls").remove(0);
    assert!(found.detail.expect("a reason").contains("host") && found.ended_at.is_some());
    // A host that only stood still may still say what became of it.
    bench.store.finish(call, CallEnd::Done(200)).await.expect("an end");
    assert_eq!(states(&bench).await, ["done"]);
}

async fn a_page_has_each_call_once_with_all_its_attempts(on: On) {
    let bench = Bench::new(on).await;
    let ledger = &bench.store;
    let mut messages = BTreeMap::new();
    for (name, end) in [
        ("a", CallEnd::Unknown("lost".into())),
        ("b", CallEnd::Failed("refused".into())),
        ("c", CallEnd::Unknown("lost".into())),
        ("a", CallEnd::Done(200)),
        ("d", CallEnd::Done(200)),
    ] {
        let runs = match messages.remove(name) {
            Some(before) => again(&bench, before).await,
            None => running(&bench, name).await,
        };
        let call = ledger.intend(runs.1.clone()).await.expect("a row");
        ledger.finish(call, end).await.expect("an end");
        messages.insert(name, runs);
    }
    let (_, other) = running(&bench, "e").await;
    let other = Intent { function: "g".into(), ..other };
    let mut names = BTreeMap::from([(other.message.clone(), "e")]);
    ledger.intend(other).await.expect("a row");
    names.extend(messages.into_iter().map(|(name, (_, call))| (call.message, name)));
    let a = names.iter().find(|(_, name)| **name == "a").map(|(id, _)| id.clone());
    let unknown = Some(CallState::Unknown);
    for (filter, expected) in [
        (CallFilter::default(), &["e 1 0-1", "d 1 1-1", "a 2 1-2", "c 1 0-1", "b 1 0-0"][..]),
        (CallFilter { state: unknown, ..CallFilter::default() }, &["c 1 0-1", "a 2 1-2"]),
        (CallFilter { function: Some("g".into()), ..CallFilter::default() }, &["e 1 0-1"]),
        (CallFilter { message: a.clone(), state: unknown, ..CallFilter::default() }, &["a 2 1-2"]),
        (CallFilter { message: a, ..CallFilter::default() }, &["a 2 1-2"]),
        (CallFilter { message: Some("nobody's".into()), ..CallFilter::default() }, &[]),
    ] {
        let mut found = Vec::new();
        let mut before: Option<CallId> = None;
        loop {
            let page = CallFilter { before, limit: 2, ..filter.clone() };
            let page = ledger.ledger(page).await.expect("a page");
            let calls = by_call(&page);
            found.extend(calls.iter().map(|call| {
                let (name, happened) = (names[&call.intent().message], call.happened);
                format!("{name} {} {}-{}", call.attempts.len(), happened.least, happened.most)
            }));
            let Some(last) = calls.last() else { break };
            before = last.place(filter.state);
        }
        assert_eq!(found, expected, "{filter:?}");
    }
}

async fn who_may_have_called_is_known(on: On) {
    let bench = Bench::new(on).await;
    let (nobody, mut names) = ("it's \"none\"".to_owned(), BTreeMap::new());
    assert!(bench.store.called(std::slice::from_ref(&nobody)).await.expect("an answer").is_empty());
    for (name, ends) in [
        ("done", &[CallEnd::Done(500), CallEnd::Failed("refused".into())][..]),
        ("unknown", &[CallEnd::Unknown("lost".into())]),
        ("intended", &[]),
        ("failed", &[CallEnd::Failed("refused".into())]),
        ("another", &[CallEnd::Done(200)]),
    ] {
        let (_, intent) = running(&bench, name).await;
        for end in ends {
            let call = bench.store.intend(intent.clone()).await.expect("a row");
            bench.store.finish(call, end.clone()).await.expect("an end");
        }
        if ends.is_empty() {
            bench.store.intend(intent.clone()).await.expect("a row");
        }
        names.insert(intent.message, name);
    }
    let mut asked: Vec<_> = names.iter().filter(|(_, name)| **name != "another").map(|(id, _)| id.clone()).collect();
    asked.push(nobody);
    let called = bench.store.called(&asked).await.expect("an answer");
    let mut called: Vec<_> = called.iter().map(|id| names[id]).collect();
    called.sort_unstable();
    assert_eq!(called, ["done", "intended", "unknown"]);
}

async fn calls_are_forgotten_with_their_messages(on: On) {
    let bench = Bench::new(on).await;
    let (gone, stays) = (bench.enqueue("gone").await, bench.enqueue("stays").await);
    let claims = bench.claim(lane(), false).await;
    for claimed in &claims {
        let call = bench.store.intend(intent(&claimed.message.id, &claimed.claim)).await.expect("a row");
        bench.store.finish(call, CallEnd::Done(200)).await.expect("an end");
    }
    let done = claims.iter().find(|claimed| claimed.message.id == gone).expect("a claim");
    assert_eq!(bench.write_and_commit(&done.claim).await, Commit::Committed);
    let now = Retention { completed: Duration::ZERO, dead: Duration::ZERO, cancelled: Duration::ZERO };
    bench.store.forget(now, 100).await.expect("a step");
    assert_eq!(states(&bench).await, ["done"], "one of two");
    assert_eq!(bench.store.calls(&gone, 10).await.expect("calls").len(), 0);
    assert_eq!(bench.store.calls(&stays, 10).await.expect("calls").len(), 1);
}

/// A host that died when it had forgotten a message and not yet its calls: the next one forgets them.
#[tokio::test]
async fn calls_that_a_dead_host_did_not_come_to_forget_are_forgotten() {
    let bench = Bench::new(On::Sqlite).await;
    for name in ["gone", "stays"] {
        let (_, call) = running(&bench, name).await;
        let call = bench.store.intend(call).await.expect("a row");
        bench.store.finish(call, CallEnd::Done(200)).await.expect("an end");
    }
    let mut file = sqlx::SqliteConnection::connect(bench.url()).await.expect("the database file");
    for table in ["queue", "messages"] {
        let oldest = format!("DELETE FROM semel_{table} WHERE seq = (SELECT min(seq) FROM semel_{table})");
        sqlx::query(AssertSqlSafe(oldest)).execute(&mut file).await.expect("one row less");
    }
    drop(file);
    assert_eq!(states(&bench).await, ["done"; 2]);
    let bench = bench.restart().await;
    assert_eq!(states(&bench).await, ["done"]);
}

/// Who calls nobody has no second file.
#[tokio::test]
async fn the_file_is_made_with_the_first_call() {
    let bench = Bench::new(On::Sqlite).await;
    let file = bench.folder.path().join("test.db.ledger");
    assert!(bench.store.calls("m", 10).await.expect("calls").is_empty() && !file.exists());
    let (_, call) = running(&bench, "m").await;
    assert!(!file.exists());
    bench.store.intend(call).await.expect("a row");
    assert!(file.exists());
}

#[tokio::test]
async fn a_file_of_another_program_is_no_ledger() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let options = SqliteConnectOptions::new().filename(folder.path().join("test.db.ledger")).create_if_missing(true);
    let mut other = options.connect().await.expect("a file");
    sqlx::query("CREATE TABLE theirs (a)").execute(&mut other).await.expect("a table");
    let refused = semel::store::open(&On::Sqlite.fresh(folder.path()).await).await.err();
    let refused = refused.expect("a refusal").to_string();
    assert!(refused.contains("test.db.ledger") && refused.contains("no ledger"), "{refused}");
}
