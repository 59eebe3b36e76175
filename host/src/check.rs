//! The two-run check: one message, run twice in transactions that are rolled back, and what differed between the runs.
//!
//! A function that does something else the second time is one whose retries are not what its first attempt was. Outside calls
//! are refused in a check, and shown. No claim is made, nothing is acknowledged, and no attempt is counted.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use serde::Serialize;
use uuid::Uuid;

use crate::clock::Timestamp;
use crate::engine::catalog::Function;
use crate::engine::{Engine, Ran, Run};
use crate::message::{Answer, Claim, Event, Message, Outcome, Token, Usage};
use crate::running::Stop;
use crate::store::{
    Bounds, Column, Commit, Error, Published, Rows, Savepoint, Session, SqlError, StateOp, StateReply, Store, Value,
};

/// Bytes of one text that are shown; all of it is compared.
const SHOWN: usize = 2000;

/// One run, as far as it can be seen from outside of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Seen {
    /// How it would have ended.
    pub(crate) outcome: &'static str,
    /// Why, if it would not have been committed.
    pub(crate) reason: String,
    /// Fuel that it used; none if a deadline ended it.
    pub(crate) fuel: Option<u64>,
    /// What it asked of the database, in order, and what it was told.
    pub(crate) steps: Vec<Step>,
    /// What it would have answered.
    pub(crate) answer: Option<String>,
    /// Outside calls that it wanted to make.
    pub(crate) calls: Vec<String>,
}

/// One call that reached the transaction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Step {
    pub(crate) asked: String,
    pub(crate) told: String,
}

/// Something that was not the same in both runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Difference {
    pub(crate) what: String,
    pub(crate) first: String,
    pub(crate) second: String,
}

/// Runs a message twice.
///
/// # Errors
/// If the function cannot run.
pub(crate) async fn twice(
    engine: &Arc<Engine>,
    store: &Arc<dyn Store>,
    function: &Arc<Function>,
    message: &Message,
) -> Result<[Seen; 2], Error> {
    Ok([once(engine, store, function, message).await?, once(engine, store, function, message).await?])
}

async fn once(
    engine: &Arc<Engine>,
    store: &Arc<dyn Store>,
    function: &Arc<Function>,
    message: &Message,
) -> Result<Seen, Error> {
    let now = store.now().await?;
    let steps = Arc::new(Mutex::new(Vec::new()));
    let claim = claim(function, message, now);
    let mut session: Box<dyn Session> = Box::new(Recorder { inner: store.rehearsal(), steps: Arc::clone(&steps) });
    session.enter(&claim);
    let (running, function, message) = (Arc::clone(engine), Arc::clone(function), message.clone());
    // In a task of its own: whoever asked may go away, and no future of a run is dropped half-way.
    let run = engine.spawn(async move {
        let handler = &function.compiled.get()?.handler;
        let (settings, stop) = (&function.settings, Arc::new(Stop::default()));
        let run =
            Run { settings, handler, message: &message, claim: &claim, stop, session, outside: None, shares: false };
        let Ran { outcome, usage, calls, session } = running.invoke(run, now).await;
        session.rollback().await;
        Some((outcome, usage, calls))
    });
    let ran = run
        .await
        .map_err(|_| Error::Refused("the run was ended by a defect of the host; its log says where".into()))?;
    let (outcome, usage, calls) = ran.ok_or_else(|| Error::Refused("the function is not compiled yet".into()))?;
    let steps = std::mem::take(&mut *steps.lock().unwrap_or_else(PoisonError::into_inner));
    let (end, reason) = (outcome.as_str(), outcome.reason());
    let answer = if let Outcome::Completed(Some(answer)) = outcome { Some(shown(&answer)) } else { None };
    Ok(Seen { outcome: end, reason, fuel: usage.fuel, steps, answer, calls })
}

/// A claim that nothing in the store knows: it can acknowledge nothing.
fn claim(function: &Function, message: &Message, now: Timestamp) -> Claim {
    let manifest = function.manifest();
    Claim {
        seq: -1,
        fence: 0,
        token: Token::random(),
        attempt: 1,
        attempts_before: 0,
        function: manifest.name.clone(),
        group: message.group.clone(),
        version: function.version,
        contract: manifest.contract,
        lease: manifest.lease(),
        claimed_at: now,
        host: "check".into(),
    }
}

fn shown(answer: &Answer) -> String {
    format!("{} {}", answer.content_type.as_deref().unwrap_or("no type:"), String::from_utf8_lossy(&answer.body))
}

/// What was not the same.
pub(crate) fn differences(runs: &[Seen; 2]) -> Vec<Difference> {
    let [first, second] = runs;
    let fuel = |seen: &Seen| seen.fuel.map_or_else(|| "not known".to_owned(), |fuel| fuel.to_string());
    let mut pairs = vec![
        ("outcome".to_owned(), first.outcome.to_owned(), second.outcome.to_owned()),
        ("reason".to_owned(), first.reason.clone(), second.reason.clone()),
        ("answer".to_owned(), first.answer.clone().unwrap_or_default(), second.answer.clone().unwrap_or_default()),
        ("fuel".to_owned(), fuel(first), fuel(second)),
    ];
    let nothing = || Step { asked: "nothing".to_owned(), told: String::new() };
    for place in 0..first.steps.len().max(second.steps.len()) {
        let [one, two] = [first, second].map(|seen| seen.steps.get(place).cloned().unwrap_or_else(nothing));
        pairs.push((format!("statement {}", place + 1), one.asked, two.asked));
        pairs.push((format!("answer to statement {}", place + 1), one.told, two.told));
    }
    for place in 0..first.calls.len().max(second.calls.len()) {
        let [one, two] = [first, second].map(|seen| seen.calls.get(place).cloned().unwrap_or_default());
        pairs.push((format!("outside call {}", place + 1), one, two));
    }
    let differ = pairs.into_iter().filter(|(_, first, second)| first != second);
    differ.map(|(what, first, second)| Difference { what, first: cut(first), second: cut(second) }).collect()
}

fn cut(mut text: String) -> String {
    if text.len() > SHOWN {
        text.truncate(text.floor_char_boundary(SHOWN));
        text.push('…');
    }
    text
}

/// Writes down what goes through it.
struct Recorder {
    inner: Box<dyn Session>,
    steps: Arc<Mutex<Vec<Step>>>,
}

impl Recorder {
    fn note(&self, asked: String, told: &impl std::fmt::Debug) {
        let step = Step { asked, told: format!("{told:?}") };
        self.steps.lock().unwrap_or_else(PoisonError::into_inner).push(step);
    }
}

#[async_trait]
impl Session for Recorder {
    fn enter(&mut self, claim: &Claim) {
        self.inner.enter(claim);
    }

    async fn open(&mut self) -> Result<(), Error> {
        self.inner.open().await
    }

    async fn query(&mut self, sql: String, params: Vec<Value>, bounds: Bounds) -> Result<Rows, SqlError> {
        let asked = format!("{sql} {params:?}");
        let told = self.inner.query(sql, params, bounds).await;
        self.note(asked, &told);
        told
    }

    async fn open_cursor(
        &mut self,
        sql: String,
        params: Vec<Value>,
        bounds: Bounds,
    ) -> Result<(u32, Vec<Column>), SqlError> {
        let asked = format!("{sql} {params:?}");
        let told = self.inner.open_cursor(sql, params, bounds).await;
        self.note(asked, &told);
        told
    }

    async fn fetch(&mut self, cursor: u32, bounds: Bounds) -> Result<Vec<Vec<Value>>, SqlError> {
        let told = self.inner.fetch(cursor, bounds).await;
        self.note(format!("rows of cursor {cursor}"), &told);
        told
    }

    async fn close_cursor(&mut self, cursor: u32) {
        self.inner.close_cursor(cursor).await;
    }

    async fn savepoint(&mut self, step: Savepoint) -> Result<(), SqlError> {
        let asked = format!("{step:?}");
        let told = self.inner.savepoint(step).await;
        self.note(asked, &told);
        told
    }

    async fn state(&mut self, namespace: String, op: StateOp) -> Result<StateReply, SqlError> {
        let asked = format!("state {op:?}");
        let told = self.inner.state(namespace, op).await;
        self.note(asked, &told);
        told
    }

    /// Under other ids: messages of these may be in the queue, published by the message's own run.
    async fn publish(&mut self, mut events: Vec<Event>) -> Result<Published, SqlError> {
        let asked = format!("publish {events:?}");
        events.iter_mut().for_each(|event| event.id = Uuid::now_v7().to_string());
        let told = self.inner.publish(events).await;
        self.note(asked, &told);
        told
    }

    fn leave(&mut self, answer: Option<Answer>, usage: Usage) {
        self.inner.leave(answer, usage);
    }

    async fn commit(self: Box<Self>) -> Commit {
        self.inner.commit().await
    }

    async fn rollback(self: Box<Self>) {
        self.inner.rollback().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen() -> Seen {
        let step = Step { asked: "SELECT 1".into(), told: "1".into() };
        Seen {
            outcome: "completed",
            reason: String::new(),
            fuel: Some(1),
            steps: vec![step],
            answer: None,
            calls: vec!["GET http://a/".into()],
        }
    }

    #[test]
    fn what_differs_is_named() {
        assert_eq!(differences(&[seen(), seen()]), []);
        let named = |change: &dyn Fn(&mut Seen)| {
            let mut second = seen();
            change(&mut second);
            let found = differences(&[seen(), second]);
            found.into_iter().map(|difference| difference.what).collect::<Vec<_>>().join(", ")
        };
        assert_eq!(named(&|seen| seen.fuel = Some(2)), "fuel");
        assert_eq!(named(&|seen| seen.outcome = "trapped"), "outcome");
        assert_eq!(named(&|seen| seen.steps[0].told = "2".into()), "answer to statement 1");
        assert_eq!(named(&|seen| seen.steps.clear()), "statement 1, answer to statement 1");
        assert_eq!(named(&|seen| seen.calls.push("GET http://b/".into())), "outside call 2");
        assert_eq!(named(&|seen| seen.answer = Some("a".into())), "answer");
    }
}
