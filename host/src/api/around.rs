//! What goes around every request: it has an end, it is counted, and nothing new is begun while the host stops.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderValue, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tokio::time::timeout;

use super::{Api, Problem};

/// What answers while the host stops. All else is a 503, so that whoever balances load goes elsewhere.
const UNTIL_THE_END: [&str; 2] = ["/healthz", "/metrics"];
/// The label of routes of manifests, and of paths that lead nowhere.
const OTHER: &str = "other";

pub(super) async fn around(State(api): State<Api>, request: Request, next: Next) -> Response {
    let matched = request.extensions().get::<MatchedPath>().cloned();
    let route = matched.as_ref().map_or(OTHER, MatchedPath::as_str);
    let stopping = *api.stopping.borrow();
    let (request, read) = watched(request);
    let mut response = if stopping && !UNTIL_THE_END.contains(&route) {
        Problem::unavailable("this host is stopping").into_response()
    } else {
        let late = |_| {
            Problem::unavailable(format!("this took longer than {:?}; it may be done all the same", api.limits.request))
                .into_response()
        };
        timeout(api.limits.request, next.run(request)).await.unwrap_or_else(late)
    };
    // Nothing can follow what was not read; a client that is not told would try.
    if stopping || !read.load(Ordering::SeqCst) {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    api.watch.metrics.answered(route, response.status().as_u16());
    response
}

/// The request, and whether its body was read to its end.
fn watched(request: Request) -> (Request, Arc<AtomicBool>) {
    let (parts, body) = request.into_parts();
    let read = Arc::new(AtomicBool::new(body.is_end_stream()));
    let body = Body::new(Watched { body, read: Arc::clone(&read) });
    (Request::from_parts(parts, body), read)
}

struct Watched {
    body: Body,
    read: Arc<AtomicBool>,
}

impl HttpBody for Watched {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, axum::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(context);
        if matches!(frame, Poll::Ready(None)) || self.body.is_end_stream() {
            self.read.store(true, Ordering::SeqCst);
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}
