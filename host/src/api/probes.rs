//! Whether the host is well: `/healthz`, `/readyz`, `/metrics` and `/v1/health`.
//!
//! Probes are asked often, and by strangers. What costs the database something is looked at by one at a time and kept
//! for a while.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

use super::{Api, Problem};
use crate::crash;
use crate::store::{Depth, Fact};
use crate::watch::system;

/// A writer that has not come to a small write after so long hangs, or is kept by a function for longer than others
/// can wait.
const WRITER_TIME: Duration = Duration::from_secs(5);
/// How long an answer of the database is good.
const FRESH: Duration = Duration::from_secs(1);
/// A count of the queue is good for so many times as long as it took, so that it never takes more than a twentieth of
/// one reader's time.
const REST: u32 = 20;

/// What was found last.
#[derive(Default)]
pub(crate) struct Probes {
    ready: Kept<bool>,
    depths: Kept<Vec<Depth>>,
}

/// Something that was looked at, until when it is good.
type Kept<T> = Mutex<Option<(Instant, T)>>;

/// What is kept, or else what `look` finds: good for a second, and for `rest` times as long as it took to find.
async fn kept<T: Clone>(kept: &Kept<T>, rest: u32, look: impl Future<Output = T>) -> T {
    let mut kept = kept.lock().await;
    let began = Instant::now();
    if let Some((_, found)) = kept.as_ref().filter(|(until, _)| began < *until) {
        return found.clone();
    }
    let found = look.await;
    let until = Instant::now() + FRESH.max(began.elapsed() * rest);
    *kept = Some((until, found.clone()));
    found
}

/// `/healthz`: the process answers.
pub(super) async fn alive() -> &'static str {
    "ok\n"
}

/// `/readyz`: a message would be accepted now. It is asked of the writer, by a write that takes a commit.
/// Below that it is said which sinks and sources are closed: what is for them waits, and nothing else does.
pub(super) async fn ready(State(api): State<Api>) -> Result<String, Problem> {
    let look = async {
        match timeout(WRITER_TIME, api.store.check()).await {
            Ok(Ok(())) => true,
            Ok(Err(error)) => {
                tracing::error!(%error, "not ready: the database takes nothing");
                false
            }
            Err(_) => {
                tracing::error!("not ready: the database has not taken anything for {WRITER_TIME:?}");
                false
            }
        }
    };
    if kept(&api.probes.ready, 0, look).await {
        let closed = api.watch.standings.all().into_iter().filter(|(_, standing)| standing.trouble.is_some());
        return Ok(closed.fold("ready\n".to_owned(), |text, (way, _)| format!("{text}{way} is closed\n")));
    }
    Err(Problem::unavailable("the database takes nothing now"))
}

/// What stands in the queue, as it was counted a while ago; nothing without the database.
pub(super) async fn depths(api: &Api) -> Vec<Depth> {
    let look = async {
        api.store.depths().await.unwrap_or_else(|error| {
            tracing::error!(%error, "cannot count the queue");
            Vec::new()
        })
    };
    kept(&api.probes.depths, REST, look).await
}

/// `/metrics`: for Prometheus. Without the database it shows what the host itself knows.
pub(super) async fn metrics(State(api): State<Api>) -> Response {
    let text = api.watch.metrics.scrape(&depths(&api).await, &api.watch.standings.all());
    ([(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], text).into_response()
}

/// `/v1/health`: what `semel doctor` prints.
pub(super) async fn health(State(api): State<Api>) -> Result<Json<Value>, Problem> {
    let mut facts = system::facts(api.limits.connections);
    facts.push(functions(&api));
    facts.extend(api.catalog.all().iter().filter_map(|function| {
        let waiting = api.catalog.keeps_others_waiting(function)?;
        Some(Fact::new("host", format!("function {}", function.manifest().name), waiting, None))
    }));
    facts.extend(crash_point());
    facts.extend(api.store.health().await?);
    let well = facts.iter().all(|fact| fact.advice.is_none());
    Ok(Json(json!({ "version": env!("CARGO_PKG_VERSION"), "well": well, "facts": facts })))
}

/// Only where one is armed: nobody should find that out by a crash.
fn crash_point() -> Option<Fact> {
    let advice = "this host ends itself there, for an experiment: unset SEMEL_CRASH, and start it again";
    crash::armed().map(|name| Fact::new("host", "crash point", format!("{name} is armed"), Some(advice.into())))
}

fn functions(api: &Api) -> Fact {
    let all = api.catalog.all();
    let waiting: Vec<_> = all.iter().filter(|function| function.compiled.get().is_none()).collect();
    let names = waiting.iter().map(|function| function.manifest().name.as_str()).collect::<Vec<_>>().join(", ");
    let advice = format!("not compiled: {names}; if this stays, the host's log says why. Deploy them again");
    let value = format!("{} deployed, {} ready", all.len(), all.len() - waiting.len());
    Fact::new("host", "functions", value, (!waiting.is_empty()).then_some(advice))
}
