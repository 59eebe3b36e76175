//! What `semel bench` measures: the sandbox with the database taken out, and the drain of a waiting queue.
//!
//! A run whose count is not exact prints no figure.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use async_trait::async_trait;
use serde_json::{Value as Json, json};
use tokio::sync::watch;

use crate::calls::LedgerClient;
use crate::clock::Timestamp;
use crate::engine::catalog::{Catalog, Function};
use crate::engine::{Engine, Resources, Run};
use crate::folder;
use crate::message::{Answer, Claim, Contract, Event, Message, Outcome, Token, Usage};
use crate::outside::{self, Client};
use crate::settlement::Settler;
use crate::store::{
    self, Bounds, Column, Commit, Published, Rows, Savepoint, Session, SqlError, StateOp, StateReply, Store, Target,
    Value,
};
use crate::watch::Watch;
use crate::worker::Worker;

/// Runs of the sandbox that are measured.
const RUNS: u32 = 5_000;
const COUNTERS: u32 = 1_000;

/// Measures, on a database of its own that is removed afterwards.
pub(crate) async fn run(functions: &Path, messages: u32) -> anyhow::Result<Json> {
    let folder = std::env::temp_dir().join(format!("semel-bench-{}", std::process::id()));
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let measured = measure(&folder, functions, messages).await;
    let _ = std::fs::remove_dir_all(&folder); // Best effort: what is left is in the folder for temporary files.
    measured
}

async fn measure(folder: &Path, functions: &Path, messages: u32) -> anyhow::Result<Json> {
    let store = store::open(&format!("sqlite://{}", folder.join("bench.db").display())).await?;
    let engine = Arc::new(Engine::new(Resources::default())?);
    let catalog = Arc::new(Catalog::open(Arc::clone(&engine), Arc::clone(&store)).await?);
    let counter = catalog.deploy(folder::read(&functions.join("counter"), None)?).await?.function;
    let sandbox = sandbox(&engine, &counter).await?;
    let drain = drain(store, engine, catalog, messages).await?;
    Ok(json!({
        "figures": {
            "sandbox_us": round(sandbox.as_secs_f64() * 1e6),
            "drain_single_per_second": round(f64::from(messages) / drain.as_secs_f64()),
            "messages": messages,
        },
        "database": "sqlite",
        "version": env!("CARGO_PKG_VERSION"),
        "optimized": !cfg!(debug_assertions),
    }))
}

fn round(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

/// Median time of instantiate + call + drop of `counter`, whose database answers at once.
async fn sandbox(engine: &Engine, counter: &Function) -> anyhow::Result<Duration> {
    let handler = &counter.compiled.get().context("the counter is not compiled")?.handler;
    let message = Message {
        id: "bench".into(),
        function: "counter".into(),
        topic: "fn/counter".into(),
        group: None,
        content_type: None,
        headers: Vec::new(),
        accepted_at: Timestamp(0),
        body: b"00000000-0000-0000-0000-000000000000".to_vec(),
    };
    let claim = Claim {
        seq: 1,
        fence: 1,
        token: Token::random(),
        attempt: 1,
        attempts_before: 0,
        function: "counter".into(),
        group: None,
        version: 1,
        contract: Contract::FinishOnce,
        lease: Duration::from_secs(10),
        claimed_at: Timestamp(0),
        host: String::new(),
    };
    let mut times = Vec::new();
    for _ in 0..RUNS {
        let began = Instant::now();
        let (settings, stop) = (&counter.settings, Arc::default());
        let run = Run {
            settings,
            handler,
            message: &message,
            claim: &claim,
            stop,
            session: Box::new(Nothing),
            outside: None,
        };
        let ran = engine.invoke(run, Timestamp(0)).await;
        times.push(began.elapsed());
        ensure!(matches!(ran.outcome, Outcome::Completed(_)), "the counter failed: {}", ran.outcome.reason());
    }
    times.sort();
    Ok(times[times.len() / 2])
}

/// Time from the start of the workers until `messages` waiting messages are completed, each with a commit of its own.
async fn drain(
    store: Arc<dyn Store>,
    engine: Arc<Engine>,
    catalog: Arc<Catalog>,
    messages: u32,
) -> anyhow::Result<Duration> {
    for number in 0..messages {
        let event = Event {
            id: format!("bench-{number}"),
            topic: "fn/counter".into(),
            body: format!("counter-{}", number % COUNTERS).into_bytes(),
            ..Event::default()
        };
        store.enqueue(event, Target::Function("counter".into()), None).await?;
    }
    let (stop, stopping) = watch::channel(false);
    let settler = Settler { store: Arc::clone(&store), watch: Watch::new(None)? };
    let outside = LedgerClient { client: Client::new(outside::Limits::default()), ledger: Arc::clone(&store) as _ };
    let worker =
        Worker::new(settler, engine, catalog, Arc::new(outside), Arc::default(), Arc::default(), Arc::default());
    let began = Instant::now();
    let worker = tokio::spawn(worker.run(stopping));
    loop {
        tokio::time::sleep(Duration::from_millis(20)).await;
        let counts = store.counts().await?;
        let counts = counts.iter().find(|counts| counts.function == "counter").context("the counter has no counts")?;
        ensure!(counts.dead == 0, "a message is dead");
        if counts.completed == u64::from(messages) {
            break;
        }
    }
    let took = began.elapsed();
    let _ = stop.send(true);
    worker.await?;
    let mut session = store.session();
    let bounds = Bounds { rows: 1, bytes: 1 << 10, deadline: Instant::now() + Duration::from_secs(5) };
    let sum = session.query("SELECT sum(n) FROM counters".into(), Vec::new(), bounds).await;
    session.rollback().await;
    let sum = sum.map_err(|e| anyhow::anyhow!("cannot read the counters: {e:?}"))?;
    ensure!(sum.rows == [[Value::Int64(messages.into())]], "the counters do not add up to {messages}: {:?}", sum.rows);
    Ok(took)
}

/// The database taken out: every statement changes one row and returns a 1.
struct Nothing;

#[async_trait]
impl Session for Nothing {
    fn enter(&mut self, _claim: &Claim) {}

    async fn open(&mut self) -> Result<(), store::Error> {
        Ok(())
    }

    async fn query(&mut self, _sql: String, _params: Vec<Value>, _bounds: Bounds) -> Result<Rows, SqlError> {
        Ok(Rows { columns: Vec::new(), rows: vec![vec![Value::Int64(1)]], changed: 1 })
    }

    async fn open_cursor(
        &mut self,
        _sql: String,
        _params: Vec<Value>,
        _bounds: Bounds,
    ) -> Result<(u32, Vec<Column>), SqlError> {
        Ok((0, Vec::new()))
    }

    async fn fetch(&mut self, _cursor: u32, _bounds: Bounds) -> Result<Vec<Vec<Value>>, SqlError> {
        Ok(Vec::new())
    }

    async fn close_cursor(&mut self, _cursor: u32) {}

    async fn savepoint(&mut self, _step: Savepoint) -> Result<(), SqlError> {
        Ok(())
    }

    async fn state(&mut self, _namespace: String, _op: StateOp) -> Result<StateReply, SqlError> {
        Ok(StateReply::Done)
    }

    async fn publish(&mut self, _events: Vec<Event>) -> Result<Published, SqlError> {
        Ok(Published::Done)
    }

    fn leave(&mut self, _answer: Option<Answer>, _usage: Usage) {}

    async fn commit(self: Box<Self>) -> Commit {
        Commit::RolledBack
    }

    async fn rollback(self: Box<Self>) {}
}
