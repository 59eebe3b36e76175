//! `/v1/outbox`: what leaves this installation and where it stands: requests that functions deferred, events for sinks.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::messages::MOST;
use super::{Api, Problem, probes};
use crate::clock::Timestamp;
use crate::deferred::{Deferred, FUNCTION};
use crate::message;
use crate::relay::POLICY;
use crate::store::{Depth, MessageFilter, MessageRecord};
use crate::watch::Standing;

/// What sinks and sources are called in the queue begins with these.
const WAYS: [(&str, &str); 2] = [("sinks", "sink:"), ("sources", "source:")];

/// The query of a listing.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Page {
    /// Events for this sink; without it, requests that were deferred.
    sink: Option<String>,
    state: Option<message::State>,
    /// The `next` of the page before.
    after: Option<i64>,
    limit: Option<u32>,
}

/// How far it has come.
#[derive(Debug, Serialize)]
struct Progress {
    state: message::State,
    attempt: u32,
    max_attempts: u32,
    created_at: Timestamp,
    available_at: Timestamp,
    completed_at: Option<Timestamp>,
    last_error: Option<Value>,
}

impl Progress {
    fn of(record: &MessageRecord) -> Self {
        let error = |(kind, message): &(String, String)| json!({ "kind": kind, "message": message });
        Self {
            state: record.state,
            attempt: record.attempt,
            max_attempts: record.attempts_before + POLICY.max_attempts,
            created_at: record.created_at,
            available_at: record.available_at,
            completed_at: record.completed_at,
            last_error: record.last_error.as_ref().map(error),
        }
    }
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
    #[serde(flatten)]
    progress: Progress,
}

impl RequestDocument {
    /// None if the message is no request, which only a damaged database holds.
    fn new(record: MessageRecord) -> Option<Self> {
        let deferred = Deferred::read(&record.headers)?;
        Some(Self {
            progress: Progress::of(&record),
            id: record.id,
            url: deferred.shown().to_owned(),
            method: deferred.method,
            function: deferred.by,
            message: deferred.of,
            reply_topic: deferred.reply_topic,
        })
    }
}

/// An event that waits for its sink, is there, or was given up.
#[derive(Debug, Serialize)]
struct EventDocument {
    /// Of its message.
    id: String,
    /// Its own, which the sink is told.
    event: String,
    topic: String,
    group: Option<String>,
    #[serde(flatten)]
    progress: Progress,
}

impl EventDocument {
    fn new(record: MessageRecord) -> Self {
        let progress = Progress::of(&record);
        Self { id: record.id, event: record.event, topic: record.topic, group: record.group, progress }
    }
}

pub(super) async fn list(
    State(api): State<Api>,
    page: Result<Query<Page>, axum::extract::rejection::QueryRejection>,
) -> Result<Json<Value>, Problem> {
    let Query(page) = page.map_err(|e| Problem::new(StatusCode::BAD_REQUEST, e.body_text()))?;
    let limit = page.limit.unwrap_or(100).clamp(1, MOST);
    let function = page.sink.as_ref().map_or_else(|| FUNCTION.to_owned(), |sink| format!("sink:{sink}"));
    let filter = MessageFilter { function: Some(function), state: page.state, before: page.after, limit };
    let records = api.store.messages(filter).await?;
    let full = records.len() == limit as usize;
    let next = records.last().filter(|_| full).map(|record| record.seq.to_string());
    let mut document = json!({ "next": next });
    if page.sink.is_some() {
        document["events"] = json!(records.into_iter().map(EventDocument::new).collect::<Vec<_>>());
    } else {
        document["requests"] = json!(records.into_iter().filter_map(RequestDocument::new).collect::<Vec<_>>());
    }
    let (standings, depths) = (api.watch.standings.all(), probes::depths(&api).await);
    for (kind, prefix) in WAYS {
        document[kind] = json!(ways(&standings, &depths, prefix));
    }
    Ok(Json(document))
}

/// Those that this host has, with what waits for each, and what was given up.
fn ways(standings: &BTreeMap<String, Standing>, depths: &[Depth], prefix: &str) -> Vec<Value> {
    let count = |function: &str, states: &[message::State]| -> u64 {
        let its = depths.iter().filter(|depth| depth.function == function && states.contains(&depth.state));
        its.map(|depth| depth.messages).sum()
    };
    let way = |(function, standing): (&String, &Standing)| {
        let name = function.strip_prefix(prefix)?;
        Some(json!({
            "name": name,
            "kind": standing.kind,
            "topics": standing.topics,
            "guarantee": standing.guarantee,
            "trouble": standing.trouble,
            "waiting": count(function, &[message::State::Available, message::State::Running]),
            "dead": count(function, &[message::State::Dead]),
        }))
    };
    standings.iter().filter_map(way).collect()
}
