//! `/v1/outbox`: what functions deferred, and where it stands.

use axum::Json;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::messages::MOST;
use super::{Api, Problem};
use crate::clock::Timestamp;
use crate::deferred::{Deferred, FUNCTION};
use crate::message;
use crate::relay::POLICY;
use crate::store::{MessageFilter, MessageRecord};

/// The query of a listing.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Page {
    state: Option<message::State>,
    /// The `next` of the page before.
    after: Option<i64>,
    limit: Option<u32>,
}

/// A request that waits, was sent, or was given up.
#[derive(Debug, Serialize)]
struct RequestDocument {
    /// Of its message, and its `Idempotency-Key`.
    id: String,
    method: String,
    /// Without its query, where secrets are.
    url: String,
    /// Who deferred it, and handling what.
    function: String,
    message: String,
    reply_topic: Option<String>,
    state: message::State,
    attempt: u32,
    max_attempts: u32,
    created_at: Timestamp,
    available_at: Timestamp,
    completed_at: Option<Timestamp>,
    last_error: Option<Value>,
}

impl RequestDocument {
    /// None if the message is no request, which only a damaged database holds.
    fn new(record: MessageRecord) -> Option<Self> {
        let deferred = Deferred::read(&record.headers)?;
        Some(Self {
            id: record.id,
            url: deferred.shown().to_owned(),
            method: deferred.method,
            function: deferred.by,
            message: deferred.of,
            reply_topic: deferred.reply_topic,
            state: record.state,
            attempt: record.attempt,
            max_attempts: record.attempts_before + POLICY.max_attempts,
            created_at: record.created_at,
            available_at: record.available_at,
            completed_at: record.completed_at,
            last_error: record.last_error.map(|(kind, message)| json!({ "kind": kind, "message": message })),
        })
    }
}

pub(super) async fn list(
    State(api): State<Api>,
    page: Result<Query<Page>, axum::extract::rejection::QueryRejection>,
) -> Result<Json<Value>, Problem> {
    let Query(page) = page.map_err(|e| Problem::new(StatusCode::BAD_REQUEST, e.body_text()))?;
    let limit = page.limit.unwrap_or(100).clamp(1, MOST);
    let filter = MessageFilter { function: Some(FUNCTION.into()), state: page.state, before: page.after, limit };
    let records = api.store.messages(filter).await?;
    let full = records.len() == limit as usize;
    let next = records.last().filter(|_| full).map(|record| record.seq.to_string());
    let requests: Vec<_> = records.into_iter().filter_map(RequestDocument::new).collect();
    Ok(Json(json!({ "requests": requests, "next": next })))
}
