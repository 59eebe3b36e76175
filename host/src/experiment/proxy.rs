//! A network that breaks where it hurts: between a host and its database's server, at commits that somebody chose.
//!
//! It listens on a port of its own ([`Proxy::url`] is what the host is given) and reads the messages of both sides, so that
//! it knows what a commit is: a COMMIT, or the end of a statement that runs in no transaction. Which commit it is tells the
//! SQL that was run before it in the same transaction. What it does to one is a [`Fault`]; each is counted when it has
//! happened, and never before. How messages look is `proxy/postgres.rs` for Postgres, `proxy/mysql.rs` for MariaDB and MySQL.
//! No TLS: it tells the host that the server has none.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use reqwest::Url;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;

mod mysql;
mod postgres;

/// Whose commit it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Of {
    /// A transaction with an acknowledgement: a guest's effects, or none.
    Acknowledgement,
    /// A message that is taken in.
    Enqueue,
    /// The mark that a begin-once message has begun.
    Begin,
    /// What was claimed.
    Claim,
}

impl Of {
    /// What stands in a statement of such a transaction, and in no other, on one database or the other.
    fn markers(self) -> [&'static str; 2] {
        match self {
            Self::Acknowledgement => ["semel_api.ack(", ".ack("],
            Self::Enqueue => ["SELECT semel.enqueue(", "INTO messages"],
            Self::Begin => ["SET begun_at = now", "SET begun_at = "],
            Self::Claim => ["token_hash = $1, host = $2", "token_hash = ?, q.host = ?"],
        }
    }

    fn is_in(self, text: &str) -> bool {
        self.markers().iter().any(|marker| text.contains(marker))
    }
}

/// What the two sides speak.
#[derive(Debug, Clone, Copy)]
enum Language {
    Postgres,
    Mysql,
}

/// What becomes of a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Both connections are closed; the server never hears of the commit and undoes the transaction.
    Before,
    /// The server has committed and said so; then both connections are closed, and the host has not heard it.
    After,
    /// Nothing goes either way any more, and both connections stay open: the server waits inside of the transaction.
    /// Whatever stood still goes on at [`Proxy::restore`], the commit included, if anybody is still there to take it.
    BlackHole,
}

/// Faults that have happened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Fired {
    /// Commits that never reached the server.
    pub before: u64,
    /// Commits whose answer never reached the host.
    pub after: u64,
    /// Commits that were swallowed on connections that stayed open.
    pub black_holes: u64,
}

impl Fired {
    /// All of them.
    #[must_use]
    pub fn all(&self) -> u64 {
        self.before + self.after + self.black_holes
    }
}

/// A proxy. It ends, with all its connections, when it is dropped.
pub struct Proxy {
    url: Url,
    shared: Arc<Shared>,
    _accepting: JoinSet<()>,
}

/// What all connections go by.
struct Shared {
    faults: Mutex<Faults>,
    fired: Mutex<Fired>,
    hold: Mutex<Option<oneshot::Sender<()>>>,
    wire: watch::Sender<Wire>,
    language: Language,
}

#[derive(Debug, Clone, Copy)]
struct Wire {
    open: bool,
    /// How often it was restored.
    restored: u64,
    /// How often all connections were cut.
    cut: u64,
    /// How long each request takes to arrive.
    latency: Duration,
}

#[derive(Default)]
struct Faults {
    /// The next so many commits of a kind.
    next: Vec<(Of, Fault, u32)>,
    /// Any commit of a kind, with a probability.
    chances: Vec<(Of, Fault, f64)>,
    random: Option<ChaCha8Rng>,
}

impl Proxy {
    /// Listens, on this machine, for what is meant for the server that the URL of a database names.
    ///
    /// # Errors
    /// If the URL names no server, or there is no port to listen on.
    pub async fn start(database: &str) -> anyhow::Result<Self> {
        // Not the parser's words: the URL may hold a password.
        let mut url = Url::parse(database).ok().context("the database's URL is not understood")?;
        let (language, port) = match url.scheme() {
            "mysql" | "mariadb" => (Language::Mysql, 3306),
            _ => (Language::Postgres, 5432),
        };
        let server =
            (url.host_str().context("the database's URL names no server")?.to_owned(), url.port().unwrap_or(port));
        let listener = TcpListener::bind("127.0.0.1:0").await.context("no port for the proxy")?;
        let address: SocketAddr = listener.local_addr()?;
        url.set_host(Some("127.0.0.1"))?;
        url.set_port(Some(address.port())).ok().context("the database's URL takes no port")?;
        let wire = Wire { open: true, restored: 0, cut: 0, latency: Duration::ZERO };
        let shared = Arc::new(Shared {
            faults: Mutex::default(),
            fired: Mutex::default(),
            hold: Mutex::default(),
            wire: watch::Sender::new(wire),
            language,
        });
        let mut accepting = JoinSet::new();
        accepting.spawn(accept(listener, server, Arc::clone(&shared)));
        Ok(Self { url, shared, _accepting: accepting })
    }

    /// The URL of the same database, by way of this proxy.
    #[must_use]
    pub fn url(&self) -> &str {
        self.url.as_str()
    }

    /// The next so many commits of a kind have this fault. What was asked for first comes first.
    pub fn next(&self, of: Of, fault: Fault, times: u32) {
        locked(&self.shared.faults).next.push((of, fault, times));
    }

    /// Each commit of a kind has one of these faults with its probability, drawn from a seed. Replaces what was said so
    /// before; an empty list ends it.
    pub fn at_random(&self, seed: u64, chances: &[(Of, Fault, f64)]) {
        let mut faults = locked(&self.shared.faults);
        faults.chances = chances.to_vec();
        faults.random = Some(ChaCha8Rng::seed_from_u64(seed));
    }

    /// What has happened so far.
    #[must_use]
    pub fn fired(&self) -> Fired {
        *locked(&self.shared.fired)
    }

    /// Holds the next acknowledgement back, before the server has heard of it, until [`Proxy::restore`]. What it returns
    /// says when that has happened; nothing is held after it was dropped.
    pub fn hold_acknowledgement(&self) -> oneshot::Receiver<()> {
        let (tell, held) = oneshot::channel();
        *locked(&self.shared.hold) = Some(tell);
        held
    }

    /// Nothing goes either way, on connections that are open and on new ones, until [`Proxy::restore`]. Nothing is closed.
    pub fn black_hole(&self) {
        self.shared.wire.send_modify(|wire| wire.open = false);
    }

    /// Everything that stands still goes on, also what a fault holds.
    pub fn restore(&self) {
        self.shared.wire.send_modify(|wire| {
            wire.open = true;
            wire.restored += 1;
        });
    }

    /// Closes all connections, whatever they are in the middle of. New ones are let in.
    pub fn cut(&self) {
        self.shared.wire.send_modify(|wire| wire.cut += 1);
    }

    /// Each request of the host takes so much longer to arrive.
    pub fn delay(&self, latency: Duration) {
        self.shared.wire.send_modify(|wire| wire.latency = latency);
    }
}

impl Shared {
    /// What is to happen to a commit after these statements.
    fn draw(&self, ran: &[Arc<str>]) -> Option<Fault> {
        let is = |of: Of| ran.iter().any(|text| of.is_in(text));
        let mut faults = locked(&self.faults);
        if let Some((_, fault, times)) = faults.next.iter_mut().find(|(of, _, times)| *times > 0 && is(*of)) {
            *times -= 1;
            return Some(*fault);
        }
        let Faults { chances, random: Some(random), .. } = &mut *faults else { return None };
        let mut chance: f64 = random.random();
        for (_, fault, share) in chances.iter().filter(|(of, ..)| is(*of)) {
            if chance < *share {
                return Some(*fault);
            }
            chance -= share;
        }
        None
    }

    /// Whether somebody waits for an acknowledgement to be held back. Tells that it is.
    fn is_to_hold(&self) -> bool {
        locked(&self.hold).take().is_some_and(|tell| tell.send(()).is_ok())
    }

    fn count(&self, fault: Fault) {
        let mut fired = locked(&self.fired);
        match fault {
            Fault::Before => fired.before += 1,
            Fault::After => fired.after += 1,
            Fault::BlackHole => fired.black_holes += 1,
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn accept(listener: TcpListener, server: (String, u16), shared: Arc<Shared>) {
    let mut lines = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((host, _)) = accepted else { continue };
                let (server, shared) = (server.clone(), Arc::clone(&shared));
                lines.spawn(async move {
                    let mut wire = shared.wire.subscribe();
                    let cut = wire.borrow_and_update().cut;
                    tokio::select! {
                        _ = connect(host, &server, &shared) => {} // However it ended: both sides are closed now.
                        _ = wire.wait_for(|wire| wire.cut > cut) => {}
                    }
                });
            }
            Some(_) = lines.join_next() => {}
        }
    }
}

/// One connection of the host, with one of the server's.
struct Line {
    shared: Arc<Shared>,
    /// Holds still until the wire was restored more often than so; 0 if it does not.
    held: AtomicU64,
    /// The answer to what was just sent is to be the last.
    swallows: AtomicBool,
}

impl Line {
    /// Nothing goes on before the next time that things are restored.
    fn hold(&self) {
        let restored = self.shared.wire.borrow().restored;
        self.held.store(restored + 1, Ordering::SeqCst);
    }

    /// Before a statement that is an acknowledgement: whether it is to stand still from here on.
    fn holds(&self, acknowledges: bool) -> bool {
        let holds = acknowledges && self.shared.is_to_hold();
        if holds {
            self.hold();
        }
        holds
    }

    /// What becomes of a commit after these statements. False if it is the end of both connections.
    fn meets(&self, ran: &[Arc<str>]) -> bool {
        match self.shared.draw(ran) {
            None => {}
            Some(Fault::Before) => {
                self.shared.count(Fault::Before);
                return false;
            }
            Some(Fault::After) => self.swallows.store(true, Ordering::SeqCst), // Counted when the server has answered.
            Some(Fault::BlackHole) => {
                self.hold();
                self.shared.count(Fault::BlackHole);
            }
        }
        true
    }

    /// Whether the answer that comes is not for the host.
    fn swallows(&self) -> bool {
        self.swallows.load(Ordering::SeqCst)
    }

    /// Returns when a request has been long enough on its way.
    async fn travel(&self) {
        let latency = self.shared.wire.borrow().latency;
        if !latency.is_zero() {
            tokio::time::sleep(latency).await;
        }
    }

    /// Returns when things may go on.
    async fn pass(&self) {
        let may = |wire: &Wire| wire.open && wire.restored >= self.held.load(Ordering::SeqCst);
        let _ = self.shared.wire.subscribe().wait_for(may).await; // The sender is in `shared`.
    }
}

async fn connect(host: TcpStream, server: &(String, u16), shared: &Arc<Shared>) -> std::io::Result<()> {
    let line = Line { shared: Arc::clone(shared), held: AtomicU64::new(0), swallows: AtomicBool::new(false) };
    line.pass().await;
    let server = TcpStream::connect((server.0.as_str(), server.1)).await?;
    host.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let ended = match shared.language {
        Language::Postgres => postgres::connect(host, server, &line).await,
        Language::Mysql => mysql::connect(host, server, &line).await,
    };
    line.pass().await; // In a black hole nobody hears that the other side has gone.
    ended
}
