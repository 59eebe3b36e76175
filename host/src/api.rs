//! The doors: HTTP in, and what every answer has in common.
//!
//! `api/send.rs` accepts messages (the first step of a message's life); the rest shows and steers. Errors are
//! `application/problem+json` and hold no SQL, no token, and no address of the database: those go to the log.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, FromRequestParts, Path, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, any, get, post};
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::engine::catalog::Catalog;
use crate::ingest::Ingest;
use crate::running::Running;
use crate::settled::Settled;
use crate::store::{self, Store};
use crate::watch::Watch;

mod around;
mod asked;
mod send;
mod bulk;
mod cloud_events;
mod functions;
mod schedules;
mod messages;
mod outbox;
mod ledger;
mod steering;
mod probes;
mod check;
pub(crate) mod document;
mod openapi;

use probes::Probes;

/// What the handlers share.
#[derive(Clone)]
pub(crate) struct Api {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) ingest: Arc<Ingest>,
    pub(crate) catalog: Arc<Catalog>,
    pub(crate) settled: Arc<Settled>,
    pub(crate) running: Arc<Running>,
    pub(crate) watch: Arc<Watch>,
    pub(crate) probes: Arc<Probes>,
    pub(crate) limits: Limits,
    /// Becomes true when the host is asked to end: then nothing new is taken, and nobody waits for an answer any more.
    pub(crate) stopping: watch::Receiver<bool>,
    /// What `/v1` and `/metrics` ask for; none on loopback without one.
    pub(crate) token: Option<Arc<str>>,
}

/// Bounds on requests.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Largest message body, in bytes.
    pub(crate) body: usize,
    /// Largest head of a request: its first line and its headers.
    pub(crate) head: usize,
    /// Largest deployment, in bytes.
    pub(crate) upload: usize,
    /// How long a message body may take to arrive.
    pub(crate) patience: Duration,
    /// How long a request may take in all.
    pub(crate) request: Duration,
    /// Connections at once.
    pub(crate) connections: usize,
}

/// Largest body of a request that is neither a message nor a deployment.
const SMALL_BODY: usize = 64 << 10;

/// Whether a route asks for the token, if there is one.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Guard {
    Open,
    Token,
}

/// All routes but those of manifests. `api/openapi.json` describes each.
fn routes() -> Vec<(&'static str, Guard, MethodRouter<Api>)> {
    use Guard::{Open, Token};
    vec![
        ("/fn/{name}", Open, any(send::to_function)),
        ("/v1/functions", Token, get(functions::list)),
        ("/v1/functions/{name}", Token, get(functions::show).put(functions::deploy).delete(steering::remove)),
        ("/v1/functions/{name}/rollback", Token, post(steering::rollback)),
        ("/v1/functions/{name}/pause", Token, post(steering::pause)),
        ("/v1/functions/{name}/resume", Token, post(steering::resume)),
        ("/v1/messages", Token, get(messages::list)),
        ("/v1/messages/{id}", Token, get(messages::show)),
        ("/v1/functions/{name}/check", Token, post(check::check)),
        ("/v1/messages/{id}/trace", Token, get(messages::trace)),
        ("/v1/messages/{id}/redrive", Token, post(steering::redrive)),
        ("/v1/messages/{id}/resolve", Token, post(steering::resolve)),
        ("/v1/messages/{id}/cancel", Token, post(steering::cancel)),
        ("/v1/redrive", Token, post(steering::redrive_many)),
        ("/v1/outbox", Token, get(outbox::list)),
        ("/v1/ledger", Token, get(ledger::list)),
        ("/v1/counts", Token, get(messages::counts)),
        ("/v1/health", Token, get(probes::health)),
        ("/metrics", Token, get(probes::metrics)),
        ("/openapi.json", Open, get(openapi::show)),
        ("/readyz", Open, get(probes::ready)),
        ("/healthz", Open, get(probes::alive)),
    ]
}

/// The routes, and what goes around each of them.
pub(crate) fn router(api: Api) -> Router {
    let mut router = Router::new();
    for (path, guard, methods) in routes() {
        let authorize = middleware::from_fn_with_state(api.clone(), authorize);
        router = router.route(path, if guard == Guard::Token { methods.route_layer(authorize) } else { methods });
    }
    router
        .fallback(send::to_route)
        .method_not_allowed_fallback(|| async {
            Problem::new(StatusCode::METHOD_NOT_ALLOWED, "this path has other methods")
        })
        .layer(DefaultBodyLimit::max(SMALL_BODY))
        .layer(middleware::from_fn_with_state(api.clone(), around::around))
        .with_state(api)
}

/// One part of a path, percent-decoded.
pub(crate) struct Part(pub(crate) String);

impl<S: Send + Sync> FromRequestParts<S> for Part {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let part = Path::<String>::from_request_parts(parts, state).await;
        part.map(|Path(part)| Self(part)).map_err(|e| Problem::new(e.status(), e.body_text()))
    }
}

/// How long the body of a request says it is.
fn announced(headers: &HeaderMap) -> Option<usize> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

async fn authorize(State(api): State<Api>, headers: HeaderMap, request: Request, next: Next) -> Response {
    let Some(token) = &api.token else { return next.run(request).await };
    let given = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let given = given.and_then(|value| value.strip_prefix("Bearer ")).unwrap_or_default();
    if same(given.as_bytes(), token.as_bytes()) {
        return next.run(request).await;
    }
    let mut refused =
        Problem::new(StatusCode::UNAUTHORIZED, "this host asks for `Authorization: Bearer TOKEN` (SEMEL_TOKEN)")
            .into_response();
    refused.headers_mut().insert(header::WWW_AUTHENTICATE, header::HeaderValue::from_static("Bearer"));
    refused
}

/// Equal, in a time that depends on the lengths alone.
fn same(left: &[u8], right: &[u8]) -> bool {
    left.len() == right.len() && left.iter().zip(right).fold(0, |different, (l, r)| different | (l ^ r)) == 0
}

/// An answer that is no success (RFC 9457).
#[derive(Debug)]
pub(crate) struct Problem {
    status: StatusCode,
    detail: String,
    /// The message that it is about.
    id: Option<String>,
    retry_after: Option<u32>,
    /// Methods that the path has.
    allow: Option<String>,
}

impl Problem {
    pub(crate) fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self { status, detail: detail.into(), id: None, retry_after: None, allow: None }
    }

    /// 503: the same request may succeed a moment later.
    pub(crate) fn unavailable(detail: impl Into<String>) -> Self {
        Self { retry_after: Some(1), ..Self::new(StatusCode::SERVICE_UNAVAILABLE, detail) }
    }

    /// 405, with the methods that there are.
    pub(crate) fn other_method(methods: &[String]) -> Self {
        let allow = methods.join(", ");
        let problem = Self::new(StatusCode::METHOD_NOT_ALLOWED, format!("this path has the methods {allow}"));
        Self { allow: Some(allow), ..problem }
    }

    /// 429: come back in a moment.
    pub(crate) fn too_many(detail: String) -> Self {
        Self { retry_after: Some(1), ..Self::new(StatusCode::TOO_MANY_REQUESTS, detail) }
    }

    pub(crate) fn about(mut self, id: &str) -> Self {
        self.id = Some(id.to_owned());
        self
    }

    fn document(&self) -> Value {
        let title = self.status.canonical_reason().unwrap_or("Error");
        let mut document =
            json!({ "type": "about:blank", "title": title, "status": self.status.as_u16(), "detail": self.detail });
        if let Some(id) = &self.id {
            document["id"] = json!(id);
        }
        document
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let document = self.document();
        let mut response = (self.status, document.to_string()).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/problem+json"));
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        if let Some(allow) = self.allow.and_then(|allow| header::HeaderValue::try_from(allow).ok()) {
            headers.insert(header::ALLOW, allow);
        }
        if let Some(id) = self.id.and_then(|id| header::HeaderValue::try_from(id).ok()) {
            headers.insert("semel-message-id", id);
        }
        response
    }
}

/// A store that is not available is a 503, never a 202; what is wrong with it is for the log.
impl From<store::Error> for Problem {
    fn from(error: store::Error) -> Self {
        match error {
            store::Error::Refused(why) => Self::new(StatusCode::UNPROCESSABLE_ENTITY, why),
            store::Error::Unavailable(why) => {
                tracing::error!(why, "the database is not available");
                Self::unavailable("the database is not available; try again")
            }
            store::Error::Busy(why) => {
                tracing::warn!(why, "the database is busy");
                Self::unavailable("somebody else holds up what this needs in the database; try again")
            }
            store::Error::Fenced => Self::new(StatusCode::CONFLICT, "somebody else holds the message by now"),
            store::Error::Broken(why) => {
                tracing::error!(why, "the database is not usable");
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "the database is not usable; the host's log says why")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Which methods each has is seen from outside, in tests/it/openapi.rs.
    #[test]
    fn every_route_is_described_and_every_description_has_a_route() {
        let document: serde_json::Value = serde_json::from_str(include_str!("api/openapi.json")).expect("JSON");
        let described: BTreeSet<&str> =
            document["paths"].as_object().expect("paths").keys().map(String::as_str).collect();
        // That of many messages comes in as that of one.
        let there: BTreeSet<&str> = routes().into_iter().map(|(path, ..)| path).chain(["/fn/{name}:batch"]).collect();
        assert_eq!(there.difference(&described).collect::<Vec<_>>(), [] as [&&str; 0], "not described");
        assert_eq!(described.difference(&there).collect::<Vec<_>>(), [] as [&&str; 0], "described, and not there");
    }
}
