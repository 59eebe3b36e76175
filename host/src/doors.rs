//! The doors: connections are let in, held to limits, and closed.
//!
//! Behind them: [`crate::api`] answers requests. Here is what keeps somebody who only holds connections open, or
//! trickles, from taking the host from the others: a bound on connections, times for everything that a client can be
//! slow at, and an end for each connection. HTTP/1.1 alone.

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::response::Response;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// Most headers of a request; one more is a 431.
const MOST_HEADERS: usize = 100;
/// A connection ends after the request during which it became so old: whoever reads or sends just fast enough to never
/// be too slow keeps his place no longer than that.
const OLDEST: Duration = Duration::from_mins(10);
/// How long and how much of what a client still sends is read after the last answer, and thrown away. Closing with
/// unread bytes tears the connection down, and the client would never see why it was refused.
const LINGER: Duration = Duration::from_secs(2);
const LINGER_BYTES: u64 = 256 << 20;
/// Connections over the limit that are told so at one time; further ones are closed without a word.
const MOST_REFUSED: usize = 64;
/// After an error of the system, which a connection that ends may mend (no free file descriptor).
const PAUSE: Duration = Duration::from_millis(100);
/// For a connection that finds no place.
const FULL: &str = "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/problem+json\r\n\
    retry-after: 1\r\nconnection: close\r\ncontent-length: 108\r\n\r\n\
    {\"type\":\"about:blank\",\"title\":\"Service Unavailable\",\"status\":503,\"detail\":\"too many connections; try again\"}";

/// Bounds on connections.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// How many may be open at once.
    pub(crate) connections: usize,
    /// Largest head of a request (its first line and its headers), in bytes.
    pub(crate) head: usize,
    /// How long a head may take to arrive, counted from when the connection is free for it.
    pub(crate) head_time: Duration,
    /// How long bytes of an answer may wait for a client that does not take them.
    pub(crate) stall: Duration,
    /// How long a request may take that runs when its connection is to end.
    pub(crate) last: Duration,
}

/// Lets connections in until `closing` becomes true, and returns when the last one has ended.
pub(crate) async fn serve(listener: TcpListener, router: Router, limits: Limits, closing: watch::Receiver<bool>) {
    let (places, refusals) = (Arc::new(Semaphore::new(limits.connections)), Arc::new(Semaphore::new(MOST_REFUSED)));
    let mut open = JoinSet::new();
    let mut closed = closing.clone();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = open.join_next() => continue,
            _ = closed.wait_for(|closing| *closing) => break, // An error is an end, too.
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                sleep(PAUSE).await;
                continue;
            }
        };
        if let Ok(place) = Arc::clone(&places).try_acquire_owned() {
            let (router, closing) = (router.clone(), closing.clone());
            open.spawn(async move {
                converse(stream, router, limits, closing).await;
                drop(place);
            });
        } else if let Ok(place) = Arc::clone(&refusals).try_acquire_owned() {
            open.spawn(async move {
                refuse(stream).await;
                drop(place);
            });
        }
    }
    drop(listener);
    while open.join_next().await.is_some() {}
}

/// One connection, request after request.
async fn converse(stream: TcpStream, router: Router, limits: Limits, mut closing: watch::Receiver<bool>) {
    // Both are only for speed and tidiness: without them the connection works as well.
    let _ = stream.set_nodelay(true);
    let stall = u32::try_from(limits.stall.as_millis()).unwrap_or(u32::MAX);
    let _ = rustix::net::sockopt::set_tcp_user_timeout(&stream, stall);
    let router = TowerToHyperService::new(router);
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let answer: futures_util::future::BoxFuture<'_, Result<Response, Infallible>> = Box::pin(router.call(request));
        answer
    });
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head_time)
        .max_headers(MOST_HEADERS)
        .max_header_size(limits.head)
        .serve_connection(TokioIo::new(stream), service);
    let mut end = pin!(async {
        tokio::select! {
            _ = closing.wait_for(|closing| *closing) => {}
            () = sleep(OLDEST) => {}
        }
    });
    let ended = tokio::select! {
        ended = poll_fn(|context| connection.poll_without_shutdown(context)) => Some(ended),
        () = &mut end => None,
    };
    let ended = match ended {
        Some(ended) => ended,
        None => {
            Pin::new(&mut connection).graceful_shutdown();
            let rest = poll_fn(|context| connection.poll_without_shutdown(context));
            timeout(limits.last, rest).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection broke off");
    }
    linger(connection.into_parts().io.into_inner()).await;
}

async fn refuse(mut stream: TcpStream) {
    if let Ok(Ok(())) = timeout(LINGER, stream.write_all(FULL.as_bytes())).await {
        linger(stream).await;
    }
}

/// Says that nothing more comes, and waits for the client to say so, too.
async fn linger(mut stream: TcpStream) {
    let rest = async {
        stream.shutdown().await?;
        tokio::io::copy(&mut stream.take(LINGER_BYTES), &mut tokio::io::sink()).await
    };
    let _ = timeout(LINGER, rest).await; // Whoever is slower than that has to guess.
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_refusal_is_as_long_as_it_says() {
        let (head, body) = FULL.split_once("\r\n\r\n").expect("a head and a body");
        assert!(head.ends_with(&format!("content-length: {}", body.len())), "{}", body.len());
    }
}
