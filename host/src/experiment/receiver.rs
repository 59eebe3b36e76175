//! A server that functions under test call: it counts what reaches it, in another process than the host.
//!
//! A request's body says which message it is for. What the server does with it says its path, so that whoever sends a
//! message decides: see [`Manner`]. What has reached it no crash and no rollback takes back, which makes it the witness
//! of outside effects.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use http_body_util::{BodyExt as _, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// How long it makes others wait: shorter than the timeout of what calls it.
const LATE: Duration = Duration::from_millis(1200);

/// How it treats the requests for one message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Manner {
    /// Each is answered at once.
    Prompt,
    /// Each takes its time.
    Late,
    /// The first is answered at once, later ones take their time.
    LaterLate,
    /// The first is taken, and its connection closed without an answer.
    FirstUnanswered,
}

impl Manner {
    const ALL: [Self; 4] = [Self::Prompt, Self::Late, Self::LaterLate, Self::FirstUnanswered];

    fn path(self) -> &'static str {
        match self {
            Self::Prompt => "/prompt",
            Self::Late => "/late",
            Self::LaterLate => "/later-late",
            Self::FirstUnanswered => "/first-unanswered",
        }
    }
}

/// A server. It ends, with all its connections, when it is dropped.
pub(super) struct Receiver {
    address: SocketAddr,
    seen: Arc<Seen>,
    _accepting: JoinSet<()>,
}

/// The `Idempotency-Key` of each request that was read to its end, by message.
type Seen = Mutex<HashMap<String, Vec<String>>>;

impl Receiver {
    /// Listens on a port of its own.
    pub(super) async fn start() -> anyhow::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.context("no port for the receiver")?;
        let address = listener.local_addr()?;
        let seen = Arc::<Seen>::default();
        let mut accepting = JoinSet::new();
        accepting.spawn(accept(listener, Arc::clone(&seen)));
        Ok(Self { address, seen, _accepting: accepting })
    }

    /// What a function must be granted to call it.
    pub(super) fn origin(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What a function must call to be treated so.
    pub(super) fn url(&self, manner: Manner) -> String {
        format!("http://{}{}", self.address, manner.path())
    }

    /// The key of each request that came for a message.
    pub(super) fn keys(&self, message: &str) -> Vec<String> {
        locked(&self.seen).get(message).cloned().unwrap_or_default()
    }
}

fn locked(seen: &Seen) -> MutexGuard<'_, HashMap<String, Vec<String>>> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn accept(listener: TcpListener, seen: Arc<Seen>) {
    let mut connections = JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        while connections.try_join_next().is_some() {}
        connections.spawn(serve(stream, Arc::clone(&seen)));
    }
}

async fn serve(stream: TcpStream, seen: Arc<Seen>) {
    let take = service_fn(|request| take(request, &seen));
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), take).await; // Callers die, as they should.
}

/// Why a connection is closed.
type Closed = Box<dyn std::error::Error + Send + Sync>;

/// Takes one request. An error closes the connection without an answer.
async fn take(request: Request<Incoming>, seen: &Seen) -> Result<Response<Empty<Bytes>>, Closed> {
    let manner = Manner::ALL.into_iter().find(|manner| manner.path() == request.uri().path());
    let key = request.headers().get("idempotency-key").and_then(|key| key.to_str().ok()).unwrap_or_default().to_owned();
    let message = request.into_body().collect().await?.to_bytes();
    let message = String::from_utf8_lossy(&message).into_owned();
    let before = {
        let mut seen = locked(seen);
        let keys = seen.entry(message).or_default();
        keys.push(key);
        keys.len() - 1
    };
    match manner {
        Some(Manner::FirstUnanswered) if before == 0 => Err("it was told to hang up".into()),
        _ => {
            if manner == Some(Manner::Late) || manner == Some(Manner::LaterLate) && before > 0 {
                tokio::time::sleep(LATE).await;
            }
            Ok(Response::new(Empty::new()))
        }
    }
}
