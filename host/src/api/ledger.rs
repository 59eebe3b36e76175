//! `/v1/ledger`, and outside calls where messages show them: what was called, how it ended, and how often it happened.

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::messages::MOST;
use super::{Api, Problem};
use crate::store::{Call, CallFilter, CallId, CallRecord, CallState, Happened, by_call};

/// Calls that a refusal names.
const NAMED: usize = 5;

/// The query of a listing.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Page {
    function: Option<String>,
    state: Option<CallState>,
    message: Option<String>,
    /// The `next` of the page before.
    after: Option<i64>,
    limit: Option<u32>,
}

/// `GET /v1/ledger`
pub(super) async fn list(
    State(api): State<Api>,
    page: Result<Query<Page>, QueryRejection>,
) -> Result<Json<Value>, Problem> {
    let Query(Page { function, state, message, after, limit }) =
        page.map_err(|e| Problem::new(StatusCode::BAD_REQUEST, e.body_text()))?;
    let limit = limit.unwrap_or(100).clamp(1, MOST);
    let filter = CallFilter { function, state, message, before: after.map(CallId), limit };
    let records = api.store.ledger(filter).await?;
    let calls = by_call(&records);
    let full = calls.len() == limit as usize;
    let next = calls.last().filter(|_| full).and_then(|call| call.place(state)).map(|place| place.0.to_string());
    Ok(Json(json!({ "calls": calls.iter().map(call).collect::<Vec<_>>(), "next": next })))
}

/// One call as a receiver sees it, with every attempt that made it.
pub(super) fn call(call: &Call<'_>) -> Value {
    let intent = call.intent();
    let attempts = call.attempts.iter().map(|record| {
        json!({
            "attempt": record.intent.attempt,
            "state": record.state,
            "status": record.status,
            "detail": record.detail,
            "intended_at": record.intended_at,
            "ended_at": record.ended_at,
        })
    });
    json!({
        "message": intent.message,
        "function": intent.function,
        "ordinal": intent.ordinal,
        "method": intent.method,
        "url": intent.url,
        "key": intent.key,
        "state": call.attempts.last().map(|record| record.state),
        "bounds": bounds(call.happened),
        "attempts": attempts.collect::<Vec<_>>(),
    })
}

fn bounds(happened: Happened) -> Value {
    json!({ "least": happened.least, "most": happened.most, "text": happened.to_string() })
}

/// What one claim has called, in order; each with its bounds over all attempts.
pub(super) fn under(fence: i64, calls: &[Call<'_>]) -> Vec<Value> {
    let mut made: Vec<(&CallRecord, Happened)> = calls
        .iter()
        .flat_map(|call| call.attempts.iter().map(|record| (*record, call.happened)))
        .filter(|(record, _)| record.intent.fence == fence)
        .collect();
    made.sort_by_key(|(record, _)| record.id);
    let document = |(record, happened): (&CallRecord, Happened)| {
        json!({
            "ordinal": record.intent.ordinal,
            "method": record.intent.method,
            "url": record.intent.url,
            "key": record.intent.key,
            "state": record.state,
            "status": record.status,
            "detail": record.detail,
            "bounds": bounds(happened),
        })
    };
    made.into_iter().map(document).collect()
}

/// Refuses a redrive of a message with calls that may already have happened, and says which.
pub(super) fn refuse_again(message: &str, records: &[CallRecord]) -> Result<(), Problem> {
    let calls = by_call(records);
    let may: Vec<_> = calls.iter().filter(|call| call.happened.most > 0).collect();
    if may.is_empty() {
        return Ok(());
    }
    let named = may.iter().take(NAMED).map(|call| {
        let intent = call.intent();
        format!("{} {} (key {}) {}", intent.method, intent.url, intent.key, call.happened)
    });
    let mut named = named.collect::<Vec<_>>().join("; ");
    if may.len() > NAMED {
        named += &format!("; and {} more", may.len() - NAMED);
    }
    let why = format!(
        "outside calls of this message may already have happened, and another attempt may make them again: {named}. If \
         that is meant, say so: `semel redrive --yes`, or {{\"yes\": true}} as the body"
    );
    Err(Problem::new(StatusCode::CONFLICT, why).about(message))
}
