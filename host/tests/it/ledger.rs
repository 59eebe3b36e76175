//! The ledger of outside calls: what is intended is durable before anybody goes on, and nothing is forgotten half-way.

use std::time::Duration;

use semel::message::State;
use semel::store::{CallEnd, CallFilter, CallId, CallState, Commit, Intent, Retention, by_call};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _};

use crate::harness::{On, on_every_store};
use crate::store::{Bench, lane};

on_every_store!(
    a_call_is_committed_before_it_is_made_and_ends_once,
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
    let options = SqliteConnectOptions::new().filename(bench.folder.path().join("test.db.ledger")).read_only(true);
    let mut file = options.connect().await.expect("a second connection");
    sqlx::query_scalar("SELECT state FROM semel_calls ORDER BY id").fetch_all(&mut file).await.expect("the calls")
}

fn intent(message: &str, attempt: u32, ordinal: u32) -> Intent {
    Intent {
        message: message.into(),
        function: "f".into(),
        fence: i64::from(attempt) + 7,
        attempt,
        ordinal,
        method: "POST".into(),
        url: "https://api.example.com/mails".into(),
        key: format!("key {ordinal}"),
    }
}

async fn a_call_is_committed_before_it_is_made_and_ends_once(on: On) {
    let bench = Bench::open(on).await;
    let ledger = &bench.store;
    let mut calls = Vec::new();
    for ordinal in 0..4 {
        calls.push(ledger.intend(intent("m", 1, ordinal)).await.expect("a row"));
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
    let found = ledger.calls("m").await.expect("calls");
    assert_eq!(found.iter().map(|call| call.status).collect::<Vec<_>>(), [Some(503), None, Some(200), None]);
    assert_eq!(found[1].detail.as_deref(), Some("refused"));
    assert_eq!((&found[3].intent.key, found[3].ended_at), (&"key 3".to_owned(), None));
    assert!(found[0].ended_at.expect("an end") >= found[0].intended_at);
}

async fn what_a_claim_leaves_open_is_unknown(on: On) {
    let bench = Bench::open(on).await;
    let ledger = &bench.store;
    let done = ledger.intend(intent("m", 1, 0)).await.expect("a row");
    ledger.finish(done, CallEnd::Done(200)).await.expect("an end");
    ledger.intend(intent("m", 1, 1)).await.expect("a row");
    ledger.intend(intent("m", 2, 1)).await.expect("a row");
    ledger.intend(intent("n", 1, 1)).await.expect("a row");
    assert_eq!(ledger.abandon("m", 8, "the run was cancelled").await.expect("an update"), 1);
    assert_eq!(states(&bench).await, ["done", "unknown", "intended", "intended"]);
    let calls = ledger.calls("m").await.expect("calls");
    let bounds: Vec<_> = by_call(&calls).iter().map(|call| call.happened.to_string()).collect();
    assert_eq!(bounds, ["happened once", "happened 0 to 2 times"]);
}

/// On SQLite the next host knows by holding the file; on Postgres others know by the end of the lease, and only then.
async fn what_a_dead_host_left_open_is_unknown_and_never_missing(on: On) {
    let bench = Bench::new(on).await;
    let id = bench.enqueue("a").await;
    let claim = bench.claim_one(lane()).await;
    let call = Intent { fence: claim.fence, ..intent(&id, 1, 0) };
    let call = bench.store.intend(call).await.expect("a row");
    bench.recover().await.expect("recovery");
    assert_eq!(states(&bench).await, ["intended"], "its host lives");
    if on == On::Postgres {
        let (url, folder) = (bench.url().to_owned(), tempfile::tempdir().expect("a temporary folder"));
        let other = Bench::over(url, folder).await;
        other.recover().await.expect("recovery");
        assert_eq!(states(&bench).await, ["intended"], "another host has merely started");
    }
    let bench = bench.restart().await;
    assert_eq!(bench.recover().await.expect("recovery").freed, 1);
    assert_eq!((states(&bench).await, bench.state(&id).await), (vec!["unknown".to_owned()], State::Available));
    let found = bench.store.calls(&id).await.expect("calls").remove(0);
    assert!(found.detail.expect("a reason").contains("host") && found.ended_at.is_some());
    // A host that only stood still may still say what became of it.
    bench.store.finish(call, CallEnd::Done(200)).await.expect("an end");
    assert_eq!(states(&bench).await, ["done"]);
}

async fn a_page_has_each_call_once_with_all_its_attempts(on: On) {
    let bench = Bench::open(on).await;
    let ledger = &bench.store;
    for (message, attempt, end) in [
        ("a", 1, CallEnd::Unknown("lost".into())),
        ("b", 1, CallEnd::Failed("refused".into())),
        ("c", 1, CallEnd::Unknown("lost".into())),
        ("a", 2, CallEnd::Done(200)),
        ("d", 1, CallEnd::Done(200)),
    ] {
        let call = ledger.intend(intent(message, attempt, 0)).await.expect("a row");
        ledger.finish(call, end).await.expect("an end");
    }
    let other = Intent { function: "g".into(), ..intent("e", 1, 0) };
    ledger.intend(other).await.expect("a row");
    let unknown = Some(CallState::Unknown);
    for (filter, expected) in [
        (CallFilter::default(), &["e 1 0-1", "d 1 1-1", "a 2 1-2", "c 1 0-1", "b 1 0-0"][..]),
        (CallFilter { state: unknown, ..CallFilter::default() }, &["c 1 0-1", "a 2 1-2"]),
        (CallFilter { function: Some("g".into()), ..CallFilter::default() }, &["e 1 0-1"]),
        (CallFilter { message: Some("a".into()), state: unknown, ..CallFilter::default() }, &["a 2 1-2"]),
        (CallFilter { message: Some("nobody's".into()), ..CallFilter::default() }, &[]),
    ] {
        let mut found = Vec::new();
        let mut before: Option<CallId> = None;
        loop {
            let page = CallFilter { before, limit: 2, ..filter.clone() };
            let page = ledger.ledger(page).await.expect("a page");
            let calls = by_call(&page);
            found.extend(calls.iter().map(|call| {
                let (message, happened) = (&call.intent().message, call.happened);
                format!("{message} {} {}-{}", call.attempts.len(), happened.least, happened.most)
            }));
            let Some(last) = calls.last() else { break };
            before = last.place(filter.state);
        }
        assert_eq!(found, expected, "{filter:?}");
    }
}

async fn who_may_have_called_is_known(on: On) {
    let bench = Bench::open(on).await;
    let ids = ["done", "unknown", "intended", "failed", "it's \"none\""].map(str::to_owned);
    assert!(bench.store.called(&ids).await.expect("an answer").is_empty());
    for (id, end) in [
        ("done", Some(CallEnd::Done(500))),
        ("done", Some(CallEnd::Failed("refused".into()))),
        ("unknown", Some(CallEnd::Unknown("lost".into()))),
        ("intended", None),
        ("failed", Some(CallEnd::Failed("refused".into()))),
        ("another", Some(CallEnd::Done(200))),
    ] {
        let call = bench.store.intend(intent(id, 1, 0)).await.expect("a row");
        if let Some(end) = end {
            bench.store.finish(call, end).await.expect("an end");
        }
    }
    let mut called = bench.store.called(&ids).await.expect("an answer");
    called.sort();
    assert_eq!(called, ["done", "intended", "unknown"]);
}

async fn calls_are_forgotten_with_their_messages(on: On) {
    let bench = Bench::new(on).await;
    let (gone, stays) = (bench.enqueue("gone").await, bench.enqueue("stays").await);
    let claims = bench.claim(lane(), false).await;
    for claimed in &claims {
        let call = Intent { fence: claimed.claim.fence, ..intent(&claimed.message.id, 1, 0) };
        let call = bench.store.intend(call).await.expect("a row");
        bench.store.finish(call, CallEnd::Done(200)).await.expect("an end");
    }
    let done = claims.iter().find(|claimed| claimed.message.id == gone).expect("a claim");
    assert_eq!(bench.write_and_commit(&done.claim).await, Commit::Committed);
    let now = Retention { completed: Duration::ZERO, dead: Duration::ZERO, cancelled: Duration::ZERO };
    bench.store.forget(now, 100).await.expect("a step");
    assert_eq!(states(&bench).await, ["done"], "one of two");
    assert_eq!(bench.store.calls(&gone).await.expect("calls").len(), 0);
    assert_eq!(bench.store.calls(&stays).await.expect("calls").len(), 1);
}

/// Who calls nobody has no second file.
#[tokio::test]
async fn the_file_is_made_with_the_first_call() {
    let bench = Bench::open(On::Sqlite).await;
    let file = bench.folder.path().join("test.db.ledger");
    assert!(bench.store.calls("m").await.expect("calls").is_empty() && !file.exists());
    bench.store.intend(intent("m", 1, 0)).await.expect("a row");
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
