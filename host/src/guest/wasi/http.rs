//! `wasi:http/outgoing-handler`: outside calls, each in the ledger before its first byte leaves.
//!
//! Calls are counted in the order in which they are handed over, so that the same call has the same key on every attempt.
//! Of a request everything is read before anything is sent: a guest that breaks off has sent nothing.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use futures_util::stream;
use http_body_util::{BodyExt, Full, Limited, StreamBody};
use hyper::body::{Body, Frame, SizeHint};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use wasmtime_wasi_http::{Error, RequestOptions, WasiBody, WasiHttpHooks};

use crate::calls::LedgerClient;
use crate::engine::limits::{CALLED_BYTES, CALLS_AT_ONCE, CHUNK_BYTES, MOST_CALLS, REQUEST_BYTES};
use crate::message::call_key;
use crate::outside::{BodyFailed, Called, Grants, Lost, NotSent, Request, Target};
use crate::running::Stop;
use crate::store::{self, Intent};

/// What room for answers is counted in, in bytes.
const UNIT: usize = 1 << 10;
/// Units of one answer.
const ANSWER_UNITS: usize = CALLED_BYTES / UNIT;

/// What a run calls with.
pub(crate) struct Caller {
    pub(crate) outside: Arc<LedgerClient>,
    pub(crate) grants: Arc<Grants>,
    pub(crate) secret: [u8; 32],
    pub(crate) message: String,
    pub(crate) function: String,
    pub(crate) fence: i64,
    pub(crate) attempt: u32,
    /// Of the run, which ends when a call finds that its claim no longer holds.
    pub(crate) stop: Arc<Stop>,
}

/// The calls of one run. Without a caller every one is refused.
pub(super) struct Calls {
    caller: Option<Arc<Caller>>,
    /// When the run must be over, as of the last call of the guest.
    pub(super) deadline: Instant,
    handed_over: u32,
    /// Method and address of those that were handed over without a caller.
    pub(super) refused: Vec<String>,
    at_once: Arc<Semaphore>,
    /// What the run may still hold of answers, in units.
    room: Arc<Semaphore>,
}

type Sent = Result<(http::Response<WasiBody>, Box<dyn Future<Output = Result<(), Error>> + Send>), Error>;

impl Calls {
    pub(super) fn new(caller: Option<Caller>) -> Self {
        Self {
            caller: caller.map(Arc::new),
            deadline: Instant::now(),
            handed_over: 0,
            refused: Vec::new(),
            at_once: Arc::new(Semaphore::new(CALLS_AT_ONCE)),
            room: Arc::new(Semaphore::new(ANSWER_UNITS * CALLS_AT_ONCE)),
        }
    }

    /// Whether there were any that may be in the ledger.
    pub(super) fn any(&self) -> bool {
        self.caller.is_some() && self.handed_over > 0
    }
}

impl WasiHttpHooks for Calls {
    fn p2_outgoing_body_chunk_size(&mut self) -> usize {
        CHUNK_BYTES
    }

    fn send_request(
        &mut self,
        request: http::Request<WasiBody>,
        options: Option<RequestOptions>,
        _processed: Box<dyn Future<Output = Result<(), Error>> + Send>,
    ) -> Box<dyn Future<Output = Sent> + Send> {
        let ordinal = self.handed_over;
        self.handed_over = self.handed_over.saturating_add(1);
        let (caller, deadline, room) = (self.caller.clone(), self.deadline, Arc::clone(&self.room));
        if caller.is_none() && ordinal < MOST_CALLS {
            self.refused.push(wanted(&request));
        }
        let turn = Arc::clone(&self.at_once).try_acquire_owned();
        let send = async move {
            let caller = caller.ok_or(Error::HttpRequestDenied)?;
            let (Ok(_turn), true) = (turn, ordinal < MOST_CALLS) else { return Err(Error::ConnectionLimitReached) };
            let options = options.unwrap_or_default();
            let response = caller.call(ordinal, request, options, deadline, &room).await?;
            let nothing_more: Box<dyn Future<Output = Result<(), Error>> + Send> = Box::new(async { Ok(()) });
            Ok((response, nothing_more))
        };
        Box::new(send)
    }
}

/// Where a request would have gone, without its query.
fn wanted(request: &http::Request<WasiBody>) -> String {
    let uri = request.uri();
    let (scheme, authority) = (uri.scheme_str().unwrap_or_default(), uri.authority().map_or("", |host| host.as_str()));
    format!("{} {scheme}://{authority}{}", request.method(), uri.path())
}

impl Caller {
    async fn call(
        &self,
        ordinal: u32,
        request: http::Request<WasiBody>,
        options: RequestOptions,
        deadline: Instant,
        room: &Arc<Semaphore>,
    ) -> Result<http::Response<WasiBody>, Error> {
        let (head, body) = request.into_parts();
        // As it will be sent: the guest's own goes before.
        let own_key =
            head.headers.get("idempotency-key").map(|key| String::from_utf8_lossy(key.as_bytes()).into_owned());
        let key = own_key.unwrap_or_else(|| call_key(&self.secret, &self.message, ordinal));
        let uri = &head.uri;
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        let authority = uri.authority().map_or("", |authority| authority.as_str());
        let target = Target::new(uri.scheme_str().unwrap_or_default(), authority, path);
        let body = Limited::new(body, REQUEST_BYTES).collect().await;
        let intent = Intent {
            message: self.message.clone(),
            function: self.function.clone(),
            fence: self.fence,
            attempt: self.attempt,
            ordinal,
            method: head.method.to_string(),
            url: target.as_ref().map_or_else(|why| format!("({why})"), Target::shown),
            key: key.clone(),
        };
        let room = room_for_one(room);
        let call = async {
            let (target, body) = match (target, body) {
                (Err(why), _) => return Called::NotSent(NotSent::Invalid(why.into())),
                (_, Err(why)) => return Called::NotSent(NotSent::Invalid(format!("the body was not given: {why}"))),
                (Ok(target), Ok(body)) => (target, body),
            };
            let request = Request {
                method: head.method,
                target,
                headers: head.headers,
                body: body.to_bytes(),
                key: Some(key),
                connect: options.connect_timeout,
                first_byte: options.first_byte_timeout,
                answer: room.as_ref().map_or(0, OwnedSemaphorePermit::num_permits) * UNIT,
            };
            self.outside.client.call(request, &self.grants, deadline).await
        };
        let called = self.outside.record(intent, call).await.map_err(|error| self.not_recorded(&error))?;
        answer(called, room)
    }

    fn not_recorded(&self, error: &store::Error) -> Error {
        let why = if *error == store::Error::Fenced {
            self.stop.claim_lost();
            "the claim on the message no longer holds"
        } else {
            tracing::warn!(%error, "an outside call cannot be written to the ledger");
            "the ledger of outside calls is not available"
        };
        Error::InternalError(Some(why.into()))
    }
}

/// Room for one answer, as far as there is some.
fn room_for_one(room: &Arc<Semaphore>) -> Option<OwnedSemaphorePermit> {
    let most = room.available_permits().min(ANSWER_UNITS);
    Arc::clone(room).try_acquire_many_owned(u32::try_from(most).ok()?).ok()
}

/// An answer's body, and the room that it takes for as long as the guest holds it.
struct Held {
    body: Full<Bytes>,
    _room: Option<OwnedSemaphorePermit>,
}

impl Body for Held {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        frame.map(|frame| frame.map(|frame| frame.map_err(|never| match never {})))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

fn answer(called: Called, mut room: Option<OwnedSemaphorePermit>) -> Result<http::Response<WasiBody>, Error> {
    let answer = match called {
        Called::Answered(answer) => answer,
        Called::NotSent(why) => return Err(not_sent(why)),
        Called::Unknown(Lost::TooLate) => return Err(Error::HttpResponseTimeout),
        Called::Unknown(Lost::Closed(_)) => return Err(Error::ConnectionTerminated),
        Called::Unknown(Lost::Garbled(_)) => return Err(Error::HttpProtocolError),
    };
    let body = match answer.body {
        Ok(bytes) => {
            let needed = bytes.len().div_ceil(UNIT);
            let spare = room.as_ref().map_or(0, |room| room.num_permits().saturating_sub(needed));
            drop(room.as_mut().and_then(|room| room.split(spare)));
            Held { body: Full::new(bytes), _room: room }.boxed_unsync()
        }
        Err(why) => {
            let error = match why {
                BodyFailed::TooLate => Error::ConnectionReadTimeout,
                BodyFailed::TooLarge(most) => Error::HttpResponseBodySize(Some(most as u64)),
                BodyFailed::BrokenOff(_) => Error::HttpResponseIncomplete,
            };
            let broken = stream::once(async { Err::<Frame<Bytes>, _>(error) });
            BodyExt::boxed_unsync(StreamBody::new(broken))
        }
    };
    let mut response = http::Response::new(body);
    *response.status_mut() = answer.status;
    *response.headers_mut() = answer.headers;
    Ok(response)
}

fn not_sent(why: NotSent) -> Error {
    match why {
        NotSent::Refused(_) => Error::HttpRequestDenied,
        NotSent::Invalid(why) => Error::InternalError(Some(why)),
        NotSent::Unresolved(_) => Error::DnsError { rcode: None, info_code: None },
        NotSent::Unreachable(_) => Error::ConnectionRefused,
        NotSent::Tls(_) => Error::TlsProtocolError,
        NotSent::TooLate => Error::ConnectionTimeout,
    }
}
