//! What the sandbox costs: instantiate, call and drop of `counter`, whose database answers at once.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use async_trait::async_trait;

use super::COUNTER;
use crate::clock::Timestamp;
use crate::engine::catalog::{Catalog, Function};
use crate::engine::{Engine, Resources, Run};
use crate::experiment::Place;
use crate::folder;
use crate::message::{Answer, Claim, Contract, Event, Message, Outcome, Token, Usage};
use crate::store::{
    self, Bounds, Column, Commit, Published, Rows, Savepoint, Session, SqlError, StateOp, StateReply, Value,
};

/// The counter, compiled as a host has it.
pub(super) struct Sandbox {
    engine: Arc<Engine>,
    counter: Arc<Function>,
}

impl Sandbox {
    pub(super) async fn prepare(place: &Place, functions: &Path) -> anyhow::Result<Self> {
        let store = store::open(&place.database("sandbox")).await?;
        let engine = Arc::new(Engine::new(Resources::default())?);
        let catalog = Catalog::open(Arc::clone(&engine), store).await?;
        let counter = catalog.deploy(folder::read(&functions.join(COUNTER), None)?).await?.function;
        Ok(Self { engine, counter })
    }

    /// Median of so many runs, in microseconds.
    pub(super) async fn median(&self, runs: u32) -> anyhow::Result<f64> {
        Ok(median(&self.engine, &self.counter, runs).await?.as_secs_f64() * 1e6)
    }
}

async fn median(engine: &Engine, counter: &Function, runs: u32) -> anyhow::Result<Duration> {
    let handler = &counter.compiled.get().context("the counter is not compiled")?.handler;
    let message = Message {
        id: "bench".into(),
        event: "bench".into(),
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
    for _ in 0..runs {
        let began = Instant::now();
        let (settings, stop) = (&counter.settings, Arc::default());
        let run = Run {
            settings,
            handler,
            message: &message,
            claim: &claim,
            stop,
            session: Box::new(Nothing { message: message.id.clone() }),
            outside: None,
            shares: false,
        };
        let ran = engine.invoke(run, Timestamp(0)).await;
        times.push(began.elapsed());
        ensure!(matches!(ran.outcome, Outcome::Completed(_)), "the counter failed: {}", ran.outcome.reason());
    }
    times.sort();
    Ok(times[times.len() / 2])
}

/// The database taken out: every statement changes one row, and returns a 1 and the message.
struct Nothing {
    message: String,
}

#[async_trait]
impl Session for Nothing {
    fn enter(&mut self, _claim: &Claim) {}

    async fn open(&mut self) -> Result<(), store::Error> {
        Ok(())
    }

    async fn query(&mut self, _sql: String, _params: Vec<Value>, _bounds: Bounds) -> Result<Rows, SqlError> {
        Ok(Rows {
            columns: Vec::new(),
            rows: vec![vec![Value::Int64(1), Value::Text(self.message.clone())]],
            changed: 1,
        })
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
