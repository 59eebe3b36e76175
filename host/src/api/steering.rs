//! What people decide about functions and messages: `rollback`, `pause`, `resume`, `remove`, `redrive`, `resolve`, `cancel`.

use std::collections::HashSet;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::http::StatusCode;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::document::{self, MessageDocument};
use super::{Api, Part, Problem, ledger, messages};
use crate::engine::catalog::Refusal;
use crate::message;
use crate::store::Decided;

/// Messages that are swept or redriven in one commit.
const STEP: u32 = 500;

/// How long a decision may take before the run that it is about is asked to end: one that ends before the decision is
/// stored would be tried again. Where the run's transaction is in the decision's way the whole time, that is not long.
const UNDISTURBED: Duration = Duration::from_millis(200);
/// On a server it is in the way only while it commits.
const UNDISTURBED_ON_A_SERVER: Duration = Duration::from_secs(5);

/// The body of a request, or why there is none.
type Body = Result<Bytes, BytesRejection>;

/// Reads a JSON body; an empty one says nothing.
pub(super) fn read<T: DeserializeOwned>(body: Body) -> Result<T, Problem> {
    let bytes = body.map_err(|e| Problem::new(e.status(), e.body_text()))?;
    let text: &[u8] = if bytes.is_empty() { b"{}" } else { &bytes };
    // By way of a map: what is no object could pass for a struct without names.
    let read = serde_json::from_slice::<Map<String, Value>>(text).map(Value::Object).and_then(serde_json::from_value);
    read.map_err(|e| Problem::new(StatusCode::BAD_REQUEST, format!("the body is not right: {e}")))
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Unknown => Self::new(StatusCode::NOT_FOUND, refusal.to_string()),
            Refusal::Conflict(why) => Self::new(StatusCode::CONFLICT, why),
            Refusal::Invalid(why) => Self::new(StatusCode::UNPROCESSABLE_ENTITY, why),
            Refusal::Store(error) => error.into(),
        }
    }
}

/// Does it in a task of its own, to its end: a client that goes away must not part what is stored from what this host
/// knows.
pub(super) async fn to_its_end<T: Send + 'static>(
    change: impl Future<Output = Result<T, Refusal>> + Send + 'static,
) -> Result<T, Problem> {
    let failed = |_| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "this failed; the host's log says why");
    Ok(tokio::spawn(change).await.map_err(failed)??)
}

/// Where a rollback leads.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Rollback {
    to: Option<i64>,
    accept_weaker_guarantee: bool,
}

/// `POST /v1/functions/{name}/rollback`
pub(super) async fn rollback(State(api): State<Api>, Part(name): Part, body: Body) -> Result<Json<Value>, Problem> {
    let Rollback { to, accept_weaker_guarantee } = read(body)?;
    let rollback = async move { api.catalog.rollback(&name, to, accept_weaker_guarantee).await };
    Ok(Json(document::steered(&to_its_end(rollback).await?)))
}

/// `POST /v1/functions/{name}/pause`
pub(super) async fn pause(State(api): State<Api>, Part(name): Part) -> Result<Json<Value>, Problem> {
    pause_or_resume(api, name, true).await
}

/// `POST /v1/functions/{name}/resume`
pub(super) async fn resume(State(api): State<Api>, Part(name): Part) -> Result<Json<Value>, Problem> {
    pause_or_resume(api, name, false).await
}

async fn pause_or_resume(api: Api, name: String, paused: bool) -> Result<Json<Value>, Problem> {
    let function = to_its_end(async move { api.catalog.pause(&name, paused).await }).await?;
    Ok(Json(document::function(&function)))
}

/// `DELETE /v1/functions/{name}`
pub(super) async fn remove(State(api): State<Api>, Part(name): Part) -> Result<Json<Value>, Problem> {
    let (catalog, removed) = (Arc::clone(&api.catalog), name.clone());
    let dead = to_its_end(async move { catalog.remove(&removed).await }).await?;
    while api.store.sweep(STEP).await? >= u64::from(STEP) {}
    Ok(Json(json!({ "name": name, "dead": dead })))
}

/// Whether outside calls may be made again.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Again {
    yes: bool,
}

/// `POST /v1/messages/{id}/redrive`
pub(super) async fn redrive(
    State(api): State<Api>,
    Part(id): Part,
    body: Body,
) -> Result<Json<MessageDocument>, Problem> {
    let Again { yes } = read(body)?;
    if !yes && messages::find(&api, &id).await?.state.can_be_redriven() {
        ledger::refuse_again(&id, &api.store.calls(&id, u32::MAX).await?)?;
    }
    let decided = api.store.redrive(&id).await?;
    done(&api, &id, decided, "only one that is dead, in-doubt or cancelled can be redriven").await
}

/// How a message in doubt ended.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Resolve {
    #[serde(rename = "as")]
    end: End,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum End {
    Completed,
    Dead,
}

/// `POST /v1/messages/{id}/resolve`
pub(super) async fn resolve(
    State(api): State<Api>,
    Part(id): Part,
    body: Body,
) -> Result<Json<MessageDocument>, Problem> {
    let end = match read::<Resolve>(body)?.end {
        End::Completed => message::State::Completed,
        End::Dead => message::State::Dead,
    };
    let decided = api.store.resolve_doubt(&id, end).await?;
    done(&api, &id, decided, "only one that is in-doubt can be resolved").await
}

/// `POST /v1/messages/{id}/cancel`
pub(super) async fn cancel(State(api): State<Api>, Part(id): Part) -> Result<Json<MessageDocument>, Problem> {
    let seq = messages::find(&api, &id).await?.seq;
    let stop = || api.running.stop(seq).iter().for_each(|claim| api.store.interrupt(claim));
    let mut deciding = pin!(api.store.cancel(&id));
    let undisturbed = if api.store.is_shared() { UNDISTURBED_ON_A_SERVER } else { UNDISTURBED };
    let decided = match tokio::time::timeout(undisturbed, &mut deciding).await {
        Ok(decided) => decided?,
        Err(_) => {
            stop(); // Its own transaction may keep the decision waiting.
            deciding.await?
        }
    };
    stop(); // It can not commit any more, and need not go on.
    done(&api, &id, decided, "it came to its end before it could be cancelled").await
}

/// Which messages to redrive.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Filter {
    function: String,
    state: Redrivable,
    limit: Option<u32>,
    /// Also those with outside calls that may have happened.
    #[serde(default)]
    yes: bool,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Redrivable {
    Dead,
    InDoubt,
    Cancelled,
}

/// `POST /v1/redrive`: all messages of a function in one state, oldest first, in small steps; without a yes not those
/// with outside calls that may have happened.
pub(super) async fn redrive_many(State(api): State<Api>, body: Body) -> Result<Json<Value>, Problem> {
    let filter: Filter = read(body)?;
    let state = match filter.state {
        Redrivable::Dead => message::State::Dead,
        Redrivable::InDoubt => message::State::InDoubt,
        Redrivable::Cancelled => message::State::Cancelled,
    };
    if api.catalog.find(&filter.function).await?.is_none() {
        return Err(Refusal::Unknown.into());
    }
    let (mut redriven, mut skipped, mut after) = (0, 0, 0);
    let mut left = filter.limit.unwrap_or(u32::MAX);
    while left > 0 {
        let mut found = api.store.redrivable(&filter.function, state, after, left.min(STEP)).await?;
        let Some((last, _)) = found.last() else { break };
        after = *last;
        let all = found.len();
        if !filter.yes {
            let ids: Vec<String> = found.iter().map(|(_, id)| id.clone()).collect();
            let called: HashSet<String> = api.store.called(&ids).await?.into_iter().collect();
            found.retain(|(_, id)| !called.contains(id));
        }
        skipped += all - found.len();
        let these = found.into_iter().map(|(seq, _)| seq).collect();
        let some = api.store.redrive_some(&filter.function, state, these).await?;
        redriven += some.len();
        left = left.saturating_sub(u32::try_from(some.len()).unwrap_or(STEP));
    }
    Ok(Json(json!({ "redriven": redriven, "skipped": skipped })))
}

/// The message after a decision, or why it was not taken.
async fn done(api: &Api, id: &str, decided: Decided, rule: &str) -> Result<Json<MessageDocument>, Problem> {
    let conflict = |why: String| Err(Problem::new(StatusCode::CONFLICT, why).about(id));
    match decided {
        Decided::Done => {
            api.settled.notify(id, None);
            Ok(Json(MessageDocument::new(messages::find(api, id).await?, &api.catalog)))
        }
        Decided::NoMessage => Err(messages::unknown(id)),
        Decided::NoFunction => conflict("its function is not deployed; deploy it, then redrive the message".into()),
        Decided::Refused(state) => conflict(format!("the message is {}: {rule}", state.as_str())),
    }
}
