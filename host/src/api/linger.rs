//! Refusals that can be read. One may come before the request's body was read; who is still sending would then see a
//! torn connection instead of the reason. So the rest is read on for a while, and thrown away.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::http::header;
use axum::middleware::Next;
use axum::response::Response;
use futures_util::{StreamExt, stream};
use tokio::sync::Mutex;

const LONGEST: Duration = Duration::from_secs(2);
const MOST_BYTES: usize = 64 << 20;

pub(super) async fn linger(request: Request, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    let asks_first = parts.headers.contains_key(header::EXPECT);
    let rest = Arc::new(Mutex::new(body.into_data_stream()));
    let lent = stream::unfold(Arc::clone(&rest), |rest| async move {
        let bytes = rest.lock().await.next().await?;
        Some((bytes, rest))
    });
    let response = next.run(Request::from_parts(parts, Body::from_stream(lent))).await;
    if !response.status().is_success() && !asks_first {
        let drain = async {
            let (mut rest, mut read) = (rest.lock().await, 0);
            while let Some(Ok(bytes)) = rest.next().await
                && read < MOST_BYTES
            {
                read += bytes.len();
            }
        };
        let _ = tokio::time::timeout(LONGEST, drain).await; // Whoever is slower than that has to guess.
    }
    response
}
