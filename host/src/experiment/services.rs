//! Services out in the world, as plain as they come: counters, locks that time out, and records with unique names, over HTTP.
//!
//! | request | answer |
//! |---|---|
//! | `POST /counters/NAME` | 200 and the count with this one: a broker that publishes, a provider that sends a mail |
//! | `POST /mails/NAME` | the same, but a second request with one `Idempotency-Key` changes nothing |
//! | `PUT /records/NAME` | 201, or 409 if it is there |
//! | `GET /records/NAME` | 200 or 404 |
//! | `PUT /locks/NAME?millis=N` | 201 if nobody holds it, or else 409; it times out |
//! | `DELETE /locks/NAME` | 204 |
//! | `GET /nothing/NAME` | 200 |
//!
//! Publishers and mailers are tried against them. But for `mails`, no request is looked at for an idempotency key: these are
//! the services of which the essay says that they have none. Each can be the moment of a crash: when a step is armed, its
//! request tells so and is never answered.

use std::collections::{HashMap, HashSet};
use std::future::pending;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use axum::Router;
use axum::extract::{Path, Query, Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::{get, post, put};
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use serde::Deserialize;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, JoinSet};

/// How long a lock is held if nobody says.
const LOCKED_FOR: Duration = Duration::from_secs(10);

/// The services. They end when this is dropped.
#[derive(Debug)]
pub struct Services {
    address: SocketAddr,
    world: Arc<Mutex<World>>,
    server: JoinHandle<()>,
}

/// All that the services know.
#[derive(Debug, Default)]
struct World {
    counters: HashMap<String, u64>,
    keys: HashSet<String>,
    records: HashSet<String>,
    locks: HashMap<String, Instant>,
    asked: u64,
    armed: Option<Armed>,
}

/// A request that is to be the moment of a crash.
#[derive(Debug)]
struct Armed {
    /// Requests until then.
    left: u64,
    /// Whether what it asks for is done first.
    after: bool,
    fire: oneshot::Sender<()>,
}

type Shared = Arc<Mutex<World>>;

fn lock(world: &Mutex<World>) -> MutexGuard<'_, World> {
    world.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Services {
    /// Starts them on a free port of this machine.
    ///
    /// # Errors
    /// If there is none.
    pub async fn start() -> anyhow::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.context("found no free port")?;
        let (address, world) = (listener.local_addr()?, Shared::default());
        let router = Router::new()
            .route("/counters/{name}", post(count))
            .route("/mails/{name}", post(send))
            .route("/records/{name}", put(record).get(look))
            .route("/locks/{name}", put(acquire).delete(release))
            .route("/nothing/{name}", get(async || StatusCode::OK))
            .layer(middleware::from_fn_with_state(Arc::clone(&world), watch))
            .with_state(Arc::clone(&world));
        let server = tokio::spawn(serve(listener, router));
        Ok(Self { address, world, server })
    }

    /// Where they listen.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Makes the `step`th request from now on (from 1) the moment of a crash: before what it asks for is done, or `after`. It is
    /// never answered; the receiver hears when it is there.
    pub fn arm(&self, step: u64, after: bool) -> oneshot::Receiver<()> {
        let (fire, fired) = oneshot::channel();
        lock(&self.world).armed = Some(Armed { left: step, after, fire });
        fired
    }

    /// Makes no request such a moment any more.
    pub fn disarm(&self) {
        lock(&self.world).armed = None;
    }

    /// Requests so far.
    #[must_use]
    pub fn asked(&self) -> u64 {
        lock(&self.world).asked
    }

    /// How often a counter was counted up.
    #[must_use]
    pub fn counter(&self, name: &str) -> u64 {
        lock(&self.world).counters.get(name).copied().unwrap_or(0)
    }

    /// Whether there is a record of this name.
    #[must_use]
    pub fn has_record(&self, name: &str) -> bool {
        lock(&self.world).records.contains(name)
    }
}

impl Drop for Services {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// Ends all connections when it is ended itself.
async fn serve(listener: TcpListener, router: Router) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let service = TowerToHyperService::new(router.clone());
        connections.spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        while connections.try_join_next().is_some() {}
    }
}

/// Under every request: counts it, and stops at the one that is armed.
async fn watch(State(world): State<Shared>, request: Request, next: Next) -> Response {
    let armed = {
        let mut world = lock(&world);
        world.asked += 1;
        if let Some(armed) = &mut world.armed {
            armed.left -= 1;
        }
        world.armed.take_if(|armed| armed.left == 0)
    };
    match armed {
        None => next.run(request).await,
        Some(armed) => {
            if armed.after {
                drop(next.run(request).await);
            }
            let _ = armed.fire.send(()); // Else nobody waits for it any more.
            pending().await
        }
    }
}

async fn count(State(world): State<Shared>, Path(name): Path<String>) -> String {
    let mut world = lock(&world);
    let count = world.counters.entry(name).or_default();
    *count += 1;
    count.to_string()
}

async fn send(State(world): State<Shared>, Path(name): Path<String>, headers: HeaderMap) -> StatusCode {
    let mut world = lock(&world);
    let key = headers.get("idempotency-key").and_then(|key| key.to_str().ok());
    if key.is_none_or(|key| world.keys.insert(key.to_owned())) {
        *world.counters.entry(name).or_default() += 1;
    }
    StatusCode::ACCEPTED
}

async fn record(State(world): State<Shared>, Path(name): Path<String>) -> StatusCode {
    if lock(&world).records.insert(name) { StatusCode::CREATED } else { StatusCode::CONFLICT }
}

async fn look(State(world): State<Shared>, Path(name): Path<String>) -> StatusCode {
    if lock(&world).records.contains(&name) { StatusCode::OK } else { StatusCode::NOT_FOUND }
}

#[derive(Deserialize)]
struct For {
    millis: Option<u64>,
}

async fn acquire(State(world): State<Shared>, Path(name): Path<String>, Query(asked): Query<For>) -> StatusCode {
    let (mut world, now) = (lock(&world), Instant::now());
    if world.locks.get(&name).is_some_and(|until| *until > now) {
        return StatusCode::CONFLICT;
    }
    let span = asked.millis.map_or(LOCKED_FOR, Duration::from_millis);
    world.locks.insert(name, now + span);
    StatusCode::CREATED
}

async fn release(State(world): State<Shared>, Path(name): Path<String>) -> StatusCode {
    lock(&world).locks.remove(&name);
    StatusCode::NO_CONTENT
}
