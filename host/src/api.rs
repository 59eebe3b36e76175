//! The doors: HTTP in, and what every answer has in common.
//!
//! `api/send.rs` accepts messages (the first step of a message's life); the rest shows and steers. Errors are
//! `application/problem+json` and hold no SQL, no token, and no address of the database: those go to the log.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{FromRequestParts, Path, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get, post};
use serde_json::json;
use tokio::sync::watch;

use crate::engine::catalog::Catalog;
use crate::running::Running;
use crate::settled::Settled;
use crate::store::{self, Store};

pub(crate) mod document;
mod functions;
mod linger;
mod messages;
mod send;
mod steering;

/// What the handlers share.
#[derive(Clone)]
pub(crate) struct Api {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) catalog: Arc<Catalog>,
    pub(crate) settled: Arc<Settled>,
    pub(crate) running: Arc<Running>,
    pub(crate) limits: Limits,
    /// Becomes true when the host is asked to end: then nobody waits for an answer any more.
    pub(crate) stopping: watch::Receiver<bool>,
    /// What `/v1` asks for; none on loopback without one.
    pub(crate) token: Option<Arc<str>>,
}

/// Bounds on requests.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Largest message body, in bytes.
    pub(crate) body: usize,
    /// Largest deployment, in bytes.
    pub(crate) upload: usize,
    /// How long a body may take to arrive.
    pub(crate) patience: Duration,
}

/// All routes.
pub(crate) fn router(api: Api) -> Router {
    let steering = Router::new()
        .route("/v1/functions", get(functions::list))
        .route("/v1/functions/{name}", get(functions::show).put(functions::deploy).delete(steering::remove))
        .route("/v1/functions/{name}/rollback", post(steering::rollback))
        .route("/v1/functions/{name}/pause", post(steering::pause))
        .route("/v1/functions/{name}/resume", post(steering::resume))
        .route("/v1/messages", get(messages::list))
        .route("/v1/messages/{id}", get(messages::show))
        .route("/v1/messages/{id}/trace", get(messages::trace))
        .route("/v1/messages/{id}/redrive", post(steering::redrive))
        .route("/v1/messages/{id}/resolve", post(steering::resolve))
        .route("/v1/messages/{id}/cancel", post(steering::cancel))
        .route("/v1/redrive", post(steering::redrive_many))
        .route("/v1/counts", get(messages::counts))
        .route("/v1/health", get(messages::health))
        .route_layer(middleware::from_fn_with_state(api.clone(), authorize));
    Router::new()
        .merge(steering)
        .route("/fn/{name}", any(send::to_function))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .fallback(send::to_route)
        .method_not_allowed_fallback(|| async {
            Problem::new(StatusCode::METHOD_NOT_ALLOWED, "this path has other methods")
        })
        .layer(middleware::from_fn(linger::linger))
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

async fn ready(State(api): State<Api>) -> Result<&'static str, Problem> {
    api.store.functions().await?;
    Ok("ready\n")
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
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let title = self.status.canonical_reason().unwrap_or("Error");
        let mut document =
            json!({ "type": "about:blank", "title": title, "status": self.status.as_u16(), "detail": self.detail });
        if let Some(id) = &self.id {
            document["id"] = json!(id);
        }
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
                let problem = Self::new(StatusCode::SERVICE_UNAVAILABLE, "the database is not available; try again");
                Self { retry_after: Some(1), ..problem }
            }
            store::Error::Broken(why) => {
                tracing::error!(why, "the database is not usable");
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "the database is not usable; the host's log says why")
            }
        }
    }
}
