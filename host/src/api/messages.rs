//! `/v1/messages`, `/v1/counts`: where messages stand, and the story of one.

use axum::Json;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::document::MessageDocument;
use super::{Api, Part, Problem, ledger};
use crate::engine::label::{Class, guarantees};
use crate::message;
use crate::store::{AttemptRecord, MessageFilter, MessageRecord, by_call};

/// Entries of one page.
pub(super) const MOST: u32 = 1000;
/// Calls of each attempt that a trace shows; the listing of the ledger has all, page by page.
const CALLS: u32 = 200;

/// The query of a listing.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Page {
    function: Option<String>,
    state: Option<message::State>,
    /// The `next` of the page before.
    after: Option<i64>,
    limit: Option<u32>,
}

pub(super) async fn list(
    State(api): State<Api>,
    page: Result<Query<Page>, axum::extract::rejection::QueryRejection>,
) -> Result<Json<Value>, Problem> {
    let Query(page) = page.map_err(|e| Problem::new(StatusCode::BAD_REQUEST, e.body_text()))?;
    let limit = page.limit.unwrap_or(100).clamp(1, MOST);
    let filter = MessageFilter { function: page.function, state: page.state, before: page.after, limit };
    let records = api.store.messages(filter).await?;
    let full = records.len() == limit as usize;
    let next = records.last().filter(|_| full).map(|record| record.seq.to_string());
    let messages: Vec<_> = records.into_iter().map(|record| MessageDocument::new(record, &api.catalog)).collect();
    Ok(Json(json!({ "messages": messages, "next": next })))
}

pub(super) async fn show(State(api): State<Api>, Part(id): Part) -> Result<Json<MessageDocument>, Problem> {
    Ok(Json(MessageDocument::new(find(&api, &id).await?, &api.catalog)))
}

pub(super) async fn trace(State(api): State<Api>, Part(id): Part) -> Result<Json<Value>, Problem> {
    let record = find(&api, &id).await?;
    let attempts = api.store.attempts(&id).await?;
    let mut calls = api.store.calls(&id, CALLS + 1).await?;
    let found = calls.len();
    calls.retain(|record| record.intent.ordinal < CALLS);
    let more_calls = calls.len() < found;
    let calls = by_call(&calls);
    let class = record.label.as_deref().and_then(Class::parse);
    let decisions = api.store.decisions(&id).await?;
    let rows = record.contract.zip(class).map(|(contract, class)| guarantees(contract, class));
    let message = MessageDocument::new(record, &api.catalog);
    let attempt = |attempt: &AttemptRecord| {
        let mut document = json!(attempt);
        document["calls"] = json!(ledger::under(attempt.fence, &calls));
        document
    };
    Ok(Json(json!({
        "message": message,
        "attempts": attempts.iter().map(attempt).collect::<Vec<_>>(),
        "calls": calls.iter().map(ledger::call).collect::<Vec<_>>(),
        "more_calls": more_calls,
        "decisions": decisions,
        "guarantees": rows,
    })))
}

pub(super) async fn find(api: &Api, id: &str) -> Result<MessageRecord, Problem> {
    api.store.message(id).await?.ok_or_else(|| unknown(id))
}

pub(super) fn unknown(id: &str) -> Problem {
    Problem::new(StatusCode::NOT_FOUND, format!("no message has the id \"{id}\""))
}

pub(super) async fn counts(State(api): State<Api>) -> Result<Json<Value>, Problem> {
    let counts = api.store.counts().await?;
    let functions: Map<String, Value> =
        counts.into_iter().map(|counts| (counts.function.clone(), json!(counts))).collect();
    Ok(Json(json!({ "functions": functions })))
}
