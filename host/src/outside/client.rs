//! One call: resolve, check, connect, send, read; and what is known of it afterwards.
//!
//! HTTP/1.1, one connection per call, nothing followed, nothing repeated, no proxy, nothing unpacked: what the server
//! says is handed over as it came, within [`Limits`].

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use super::connection::{Began, Trust, Watched, connect};
use super::grant::{Grants, Target};
use super::resolve::{Resolver, addresses};
use super::{SystemResolver, headers};

/// Calls servers for guests. One per process.
pub struct Client {
    resolver: Arc<dyn Resolver>,
    /// Read when it is needed first: most hosts never call anybody.
    trust: OnceLock<Trust>,
    limits: Limits,
}

/// How far one call may go.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes of a request's body.
    pub request: usize,
    /// Bytes of an answer's body, as they came.
    pub answer: usize,
    /// Headers of an answer.
    pub headers: usize,
    /// Bytes of an answer's head.
    pub head: usize,
    /// From the beginning until the connection stands, TLS included.
    pub connect: Duration,
    /// From there until the head of the answer is read.
    pub first_byte: Duration,
    /// From the beginning to the end.
    pub total: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            request: 1 << 20,
            answer: 4 << 20,
            headers: 100,
            head: 32 << 10,
            connect: Duration::from_secs(10),
            first_byte: Duration::from_secs(60),
            total: Duration::from_secs(120),
        }
    }
}

/// A request with all of its body.
#[derive(Debug, Clone)]
pub struct Request {
    /// Not `CONNECT` or `TRACE`.
    pub method: Method,
    /// Where it goes.
    pub target: Target,
    /// As the guest wrote them; those that are the connection's business are replaced.
    pub headers: HeaderMap,
    /// The payload.
    pub body: Bytes,
    /// Sent as `Idempotency-Key`, unless the headers have one.
    pub key: Option<String>,
    /// As [`Limits::connect`], if it is shorter.
    pub connect: Option<Duration>,
    /// As [`Limits::first_byte`], if it is shorter.
    pub first_byte: Option<Duration>,
    /// As [`Limits::answer`], if it is less.
    pub answer: usize,
}

/// What is known of a call when it is over.
#[derive(Debug)]
pub enum Called {
    /// It certainly did not happen: no byte of the request left.
    NotSent(NotSent),
    /// It may have happened: at least one byte may have left, and no answer came.
    Unknown(Lost),
    /// The server has answered.
    Answered(Answer),
}

/// Why a request was not sent. The texts are for whoever may see the ledger.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotSent {
    /// A wall: the server is not granted, or is not where it should be.
    #[error("refused: {0}")]
    Refused(String),
    /// The request itself cannot be sent.
    #[error("invalid: {0}")]
    Invalid(String),
    /// The name has no address.
    #[error("not resolved: {0}")]
    Unresolved(String),
    /// No address of the server took a connection.
    #[error("not connected: {0}")]
    Unreachable(String),
    /// The server could not prove who it is, or does not speak TLS as it should.
    #[error("no TLS: {0}")]
    Tls(String),
    /// The time for it was over before the connection stood.
    #[error("not connected in time")]
    TooLate,
}

/// Why nobody knows what became of a request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Lost {
    /// No answer came in time.
    #[error("no answer in time")]
    TooLate,
    /// The connection ended before an answer came.
    #[error("the connection ended: {0}")]
    Closed(String),
    /// What came is no answer, or its head is larger than allowed.
    #[error("no valid answer: {0}")]
    Garbled(String),
}

/// What a server said.
pub struct Answer {
    /// The status, redirects and errors too.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// All of the body, or why it is not there. The call has happened either way.
    pub body: Result<Bytes, BodyFailed>,
}

/// Why the body of an answer is not there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BodyFailed {
    /// It did not end in time.
    #[error("the answer did not end in time")]
    TooLate,
    /// It is larger than allowed.
    #[error("the answer has more than {0} bytes")]
    TooLarge(usize),
    /// The connection ended in it, or it is malformed.
    #[error("the answer broke off: {0}")]
    BrokenOff(String),
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.body.as_ref().map(Bytes::len);
        f.debug_struct("Answer").field("status", &self.status).field("body", &bytes).finish_non_exhaustive()
    }
}

impl Client {
    /// With the machine's resolver and the certificates that it trusts.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self { resolver: Arc::new(SystemResolver), trust: OnceLock::new(), limits }
    }

    /// With another resolver and other certificates.
    #[must_use]
    pub fn with(resolver: Arc<dyn Resolver>, trust: Trust, limits: Limits) -> Self {
        Self { resolver, trust: OnceLock::from(trust), limits }
    }

    fn trust(&self) -> Result<&Trust, NotSent> {
        if let Some(trust) = self.trust.get() {
            return Ok(trust);
        }
        let read = Trust::of_machine().map_err(|error| NotSent::Tls(error.to_string()))?;
        Ok(self.trust.get_or_init(|| read))
    }

    /// Makes one call, which is over at `until` at the latest. Whoever drops it half-way knows nothing of it.
    pub async fn call(&self, request: Request, grants: &Grants, until: std::time::Instant) -> Called {
        let began = Began::default();
        let until = Instant::from_std(until).min(Instant::now() + self.limits.total);
        match self.exchange(request, grants, until, began.clone()).await {
            Ok(answer) => Called::Answered(answer),
            Err(Failed::Before(why)) => Called::NotSent(why),
            // The one place where "nothing has left" is decided.
            Err(Failed::During(why)) if began.is_set() => Called::Unknown(why),
            Err(Failed::During(Lost::TooLate)) => Called::NotSent(NotSent::TooLate),
            Err(Failed::During(why)) => Called::NotSent(NotSent::Unreachable(why.to_string())),
        }
    }

    async fn exchange(
        &self,
        request: Request,
        grants: &Grants,
        until: Instant,
        began: Began,
    ) -> Result<Answer, Failed> {
        let Request { method, target, headers, body, key, .. } = request;
        let limits = Limits {
            answer: self.limits.answer.min(request.answer),
            connect: request.connect.map_or(self.limits.connect, |own| own.min(self.limits.connect)),
            first_byte: request.first_byte.map_or(self.limits.first_byte, |own| own.min(self.limits.first_byte)),
            ..self.limits
        };
        let origin = &target.origin;
        if !grants.allow(origin) {
            return Err(NotSent::Refused(format!("{origin} is not granted ([grants] http)")).into());
        }
        if matches!(method, Method::CONNECT | Method::TRACE) {
            return Err(NotSent::Refused(format!("the method {method} is not available")).into());
        }
        if body.len() > limits.request {
            let (length, most) = (body.len(), limits.request);
            return Err(NotSent::Invalid(format!("the body has {length} bytes; at most {most} are allowed")).into());
        }
        let headers = headers::outgoing(headers, origin, key.as_deref())?;
        let connected = until.min(Instant::now() + limits.connect);
        let found = timeout_at(connected, addresses(self.resolver.as_ref(), origin, grants)).await;
        let found = found.map_err(|_| NotSent::TooLate)??;
        let trust = if origin.is_secure() { Some(self.trust()?) } else { None };
        let wire = connect(origin, &found, trust, connected).await?;
        if Instant::now() >= until {
            return Err(NotSent::TooLate.into()); // What is ready at once is not asked for the time.
        }
        let mut message = http::Request::new(Full::new(body));
        *message.method_mut() = method;
        *message.uri_mut() = target.path.into();
        *message.headers_mut() = headers;
        send(message, Watched { wire, began }, &limits, until).await
    }
}

/// From the first byte of the request to the last of the answer.
async fn send(
    message: http::Request<Full<Bytes>>,
    wire: Watched,
    limits: &Limits,
    until: Instant,
) -> Result<Answer, Failed> {
    let mut builder = http1::Builder::new();
    builder.max_headers(limits.headers).max_header_size(limits.head).max_buf_size(limits.head.max(8 << 10));
    let (mut sender, connection) = builder.handshake(TokioIo::new(wire)).await.map_err(lost)?;
    let mut driver = JoinSet::new(); // It ends with this call, however this call ends.
    driver.spawn(connection);
    let first = until.min(Instant::now() + limits.first_byte);
    let answer = match timeout_at(first, sender.send_request(message)).await {
        Ok(answer) => answer.map_err(lost)?,
        Err(_) => return Err(Failed::During(Lost::TooLate)),
    };
    let (head, body) = answer.into_parts();
    let body = match timeout_at(until, collect(body, limits.answer)).await {
        Ok(body) => body,
        Err(_) => Err(BodyFailed::TooLate),
    };
    Ok(Answer { status: head.status, headers: head.headers, body })
}

/// All of a body, if it is not too large. Trailers are passed over.
async fn collect(mut body: Incoming, most: usize) -> Result<Bytes, BodyFailed> {
    let mut whole = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| BodyFailed::BrokenOff(cause(&error)))?;
        let Ok(data) = frame.into_data() else { continue };
        if whole.len() + data.len() > most {
            return Err(BodyFailed::TooLarge(most));
        }
        whole.extend_from_slice(&data);
    }
    Ok(whole.freeze())
}

/// Why there is no answer: certainly before the first byte, or when one may have left.
enum Failed {
    Before(NotSent),
    During(Lost),
}

impl From<NotSent> for Failed {
    fn from(why: NotSent) -> Self {
        Self::Before(why)
    }
}

fn lost(error: hyper::Error) -> Failed {
    Failed::During(if error.is_parse() { Lost::Garbled(cause(&error)) } else { Lost::Closed(cause(&error)) })
}

/// The innermost cause, which says most.
fn cause(error: &hyper::Error) -> String {
    let mut inner: &dyn std::error::Error = error;
    while let Some(source) = inner.source() {
        inner = source;
    }
    inner.to_string()
}
