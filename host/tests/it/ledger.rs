//! The ledger of outside calls: what is intended is durable before anybody goes on, and nothing is forgotten half-way.

use std::sync::Arc;

use semel::store::{self, CallEnd, CallState, Error, Intent, Ledger, by_call};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Row};

struct Bench {
    ledger: Arc<dyn Ledger>,
    folder: tempfile::TempDir,
}

impl Bench {
    async fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        Self { ledger: open(&folder).await.expect("a ledger"), folder }
    }

    /// What another process sees, with a connection of its own.
    async fn states(&self) -> Vec<String> {
        let options = SqliteConnectOptions::new().filename(self.folder.path().join("test.db.ledger")).read_only(true);
        let mut connection = options.connect().await.expect("a second connection");
        let rows = sqlx::query("SELECT state FROM semel_calls ORDER BY id").fetch_all(&mut connection).await;
        rows.expect("the calls").iter().map(|row| row.get(0)).collect()
    }
}

async fn open(folder: &tempfile::TempDir) -> Result<Arc<dyn Ledger>, Error> {
    let opened = store::open_ledger(&format!("sqlite://{}/test.db", folder.path().display())).await?;
    Ok(opened.expect("SQLite has a ledger"))
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

#[tokio::test]
async fn a_call_is_committed_before_it_is_made_and_ends_once() {
    let bench = Bench::new().await;
    let ledger = &bench.ledger;
    let mut calls = Vec::new();
    for ordinal in 0..4 {
        calls.push(ledger.intend(intent("m", 1, ordinal)).await.expect("a row"));
    }
    assert_eq!(bench.states().await, ["intended"; 4]);
    ledger.finish(calls[0], CallEnd::Done(503)).await.expect("an end");
    ledger.finish(calls[1], CallEnd::Failed("refused".into())).await.expect("an end");
    ledger.finish(calls[2], CallEnd::Unknown("no answer".into())).await.expect("an end");
    assert_eq!(bench.states().await, ["done", "failed", "unknown", "intended"]);
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

#[tokio::test]
async fn what_a_claim_leaves_open_is_unknown() {
    let bench = Bench::new().await;
    let ledger = &bench.ledger;
    let done = ledger.intend(intent("m", 1, 0)).await.expect("a row");
    ledger.finish(done, CallEnd::Done(200)).await.expect("an end");
    ledger.intend(intent("m", 1, 1)).await.expect("a row");
    ledger.intend(intent("m", 2, 1)).await.expect("a row");
    ledger.intend(intent("n", 1, 1)).await.expect("a row");
    assert_eq!(ledger.abandon("m", 8, "the run was cancelled").await.expect("an update"), 1);
    assert_eq!(bench.states().await, ["done", "unknown", "intended", "intended"]);
    let calls = ledger.calls("m").await.expect("calls");
    let bounds: Vec<_> = by_call(&calls).iter().map(|call| call.happened.to_string()).collect();
    assert_eq!(bounds, ["happened once", "happened 0 to 2 times"]);
}

#[tokio::test]
async fn what_a_dead_host_left_open_is_unknown_and_never_missing() {
    let bench = Bench::new().await;
    for message in ["a", "b", "c"] {
        bench.ledger.intend(intent(message, 1, 0)).await.expect("a row");
    }
    // The next host opens the same file; the handle of the one before stands for a process that is no more.
    let next = open(&bench.folder).await.expect("a ledger");
    assert_eq!(bench.states().await, ["unknown"; 3]);
    let page = next.unknown_calls(None, 2).await.expect("a page");
    assert_eq!(page.iter().map(|call| call.intent.message.as_str()).collect::<Vec<_>>(), ["c", "b"]);
    let page = next.unknown_calls(Some(page[1].id), 2).await.expect("a page");
    assert_eq!(
        page.iter().map(|call| (call.intent.message.as_str(), call.state)).collect::<Vec<_>>(),
        [("a", CallState::Unknown)]
    );
    assert!(page[0].detail.as_deref().expect("a reason").contains("died"));
}

#[tokio::test]
async fn calls_are_forgotten_with_their_messages() {
    let bench = Bench::new().await;
    for message in ["a", "b", "a", "it's \"c\""] {
        bench.ledger.intend(intent(message, 1, 0)).await.expect("a row");
    }
    let gone = ["a".to_owned(), "it's \"c\"".to_owned(), "never there".to_owned()];
    assert_eq!(bench.ledger.forget_calls(&gone).await.expect("a removal"), 3);
    assert_eq!(bench.ledger.calls("b").await.expect("calls").len(), 1);
}

#[tokio::test]
async fn a_file_of_another_program_is_no_ledger() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let options = SqliteConnectOptions::new().filename(folder.path().join("test.db.ledger")).create_if_missing(true);
    let mut other = options.connect().await.expect("a file");
    sqlx::query("CREATE TABLE theirs (a)").execute(&mut other).await.expect("a table");
    let refused = open(&folder).await.err().expect("a refusal").to_string();
    assert!(refused.contains("test.db.ledger") && refused.contains("no ledger"), "{refused}");
}
