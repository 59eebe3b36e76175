//! Requests as cheap as they can be made: sender and host share the machine, and what the sender takes the host does not have.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::{AbortHandle, JoinSet};

/// One connection, one request at a time.
pub(super) struct Connection {
    sender: SendRequest<Full<Bytes>>,
    address: String,
    driver: AbortHandle,
}

impl Connection {
    pub(super) async fn open(address: SocketAddr) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address).await.context("cannot reach the host")?;
        stream.set_nodelay(true)?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        let driver = tokio::spawn(connection).abort_handle();
        Ok(Self { sender, address: address.to_string(), driver })
    }

    /// The status, when the answer was read to its end. `wait`: for the function's answer.
    pub(super) async fn post(&mut self, path: &str, wait: bool, body: Bytes) -> anyhow::Result<StatusCode> {
        let mut request = Request::post(path).header("host", &self.address);
        if wait {
            request = request.header("prefer", "wait=60");
        }
        let answer =
            self.sender.send_request(request.body(Full::new(body))?).await.context("the host does not answer")?;
        let status = answer.status();
        answer.into_body().collect().await.context("the host's answer broke off")?;
        self.sender.ready().await?;
        Ok(status)
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// The status of each answer, and how long all of them took together.
pub(super) struct Closed {
    pub(super) seconds: f64,
    pub(super) statuses: Vec<StatusCode>,
}

/// Sends all of these, each connection the next one when the one before was answered.
pub(super) async fn closed(
    address: SocketAddr,
    path: &str,
    wait: bool,
    bodies: Vec<String>,
    connections: usize,
) -> anyhow::Result<Closed> {
    let mut open = Vec::new();
    for _ in 0..connections {
        open.push(Connection::open(address).await?);
    }
    let share = bodies.len().div_ceil(connections).max(1);
    let mut senders = JoinSet::new();
    let began = Instant::now();
    for (mut connection, bodies) in open.into_iter().zip(bodies.chunks(share)) {
        let (path, bodies) = (path.to_owned(), bodies.to_vec());
        senders.spawn(async move {
            let mut statuses = Vec::with_capacity(bodies.len());
            for body in bodies {
                statuses.push(connection.post(&path, wait, body.into()).await?);
            }
            anyhow::Ok(statuses)
        });
    }
    let mut statuses = Vec::new();
    while let Some(sent) = senders.join_next().await {
        statuses.extend(sent??);
    }
    Ok(Closed { seconds: began.elapsed().as_secs_f64(), statuses })
}

/// Sends so many per second, whether or not those before were answered, and says how long each took to its answer, which
/// must be a 200. Sorted.
pub(super) async fn paced(
    address: SocketAddr,
    path: &str,
    per_second: f64,
    bodies: Vec<String>,
) -> anyhow::Result<Vec<Duration>> {
    let mut free = Vec::new();
    for _ in 0..8 {
        free.push(Connection::open(address).await?);
    }
    let (mut sending, mut times) = (JoinSet::new(), Vec::with_capacity(bodies.len()));
    let mut ticks = tokio::time::interval(Duration::from_secs_f64(1.0 / per_second));
    for body in bodies {
        ticks.tick().await;
        while let Some(sent) = sending.try_join_next() {
            let (connection, time) = sent??;
            times.push(time);
            free.push(connection);
        }
        let (path, began, connection) = (path.to_owned(), Instant::now(), free.pop());
        sending.spawn(async move {
            let mut connection = match connection {
                Some(connection) => connection,
                None => Connection::open(address).await?,
            };
            let status = connection.post(&path, true, body.into()).await?;
            anyhow::ensure!(status == StatusCode::OK, "a message was not answered with 200, but with {status}");
            Ok((connection, began.elapsed()))
        });
    }
    while let Some(sent) = sending.join_next().await {
        times.push(sent??.1);
    }
    times.sort_unstable();
    Ok(times)
}
