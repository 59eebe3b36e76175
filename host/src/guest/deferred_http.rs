//! `deferred-http`: requests that are sent after the commit of the current message, and never otherwise.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Method};

use super::bindings::semel::function::deferred_http as wit;
use super::outbox::{size_of, without_reserved};
use super::{Settings, View};
use crate::deferred::{Deferred, LONGEST};
use crate::engine::limits::{EVENT_BYTES, MOST_HEADERS, MOST_PUBLISHED, PUBLISHED_BYTES};
use crate::outside::Target;
use crate::store::Published;

pub(crate) struct Requests {
    settings: Arc<Settings>,
    message: String,
    /// Of bodies and headers, in all.
    bytes: usize,
    pub(crate) deferred: u32,
}

impl Requests {
    pub(crate) fn new(settings: &Arc<Settings>, message: &str) -> Self {
        Self { settings: Arc::clone(settings), message: message.to_owned(), bytes: 0, deferred: 0 }
    }

    /// Whether this may be sent, as far as anybody can know before.
    fn check(&self, request: &wit::Request) -> Result<(), wit::Error> {
        let forbidden = |why: String| Err(wit::Error::Forbidden(why));
        let manifest = &self.settings.manifest;
        let target = Target::parse(&request.url).map_err(|_| wit::Error::InvalidUrl)?;
        if !self.settings.calls.allow(&target.origin) {
            return forbidden(format!("{} is not granted; name it in [grants] http of function.toml", target.origin));
        }
        match Method::from_bytes(request.method.as_bytes()) {
            Ok(Method::CONNECT | Method::TRACE) | Err(_) => {
                return forbidden(format!("the method \"{}\" is not available", request.method.escape_default()));
            }
            Ok(_) => {}
        }
        let is_header = |(name, value): &(String, String)| {
            name.parse::<HeaderName>().is_ok() && value.parse::<HeaderValue>().is_ok()
        };
        if request.headers.len() > MOST_HEADERS || !request.headers.iter().all(is_header) {
            return forbidden(format!("a request may have {MOST_HEADERS} headers, each as HTTP writes them"));
        }
        if let Some(topic) = request.reply_topic.as_ref().filter(|topic| !manifest.grants.topics.contains(topic)) {
            return forbidden(format!("topic \"{topic}\" is not granted; name it in [grants] topics of function.toml"));
        }
        let most = EVENT_BYTES.min(PUBLISHED_BYTES - self.bytes);
        if size(request) > most {
            return Err(wit::Error::TooLarge(most as u64));
        }
        if self.deferred >= MOST_PUBLISHED {
            return forbidden(format!("a run may defer {MOST_PUBLISHED} requests"));
        }
        Ok(())
    }
}

fn size(request: &wit::Request) -> usize {
    request.url.len() + size_of(&request.body, &request.headers)
}

impl wit::Host for View<'_, Requests> {
    async fn enqueue(&mut self, request: wit::Request) -> wasmtime::Result<Result<String, wit::Error>> {
        if let Err(error) = self.own.check(&request) {
            return Ok(Err(error));
        }
        let bytes = size(&request);
        let deferred = Deferred {
            method: request.method,
            url: request.url,
            headers: without_reserved(request.headers),
            timeout: request.timeout.map(|millis| Duration::from_millis(millis).min(LONGEST)),
            reply_topic: request.reply_topic,
            by: self.own.settings.manifest.name.clone(),
            of: self.own.message.clone(),
        };
        let (id, event) = deferred.into_event(request.body, self.own.deferred);
        Ok(match self.transaction.publish(vec![event]).await? {
            Some(Published::Done) => {
                self.own.bytes += bytes;
                self.own.deferred += 1;
                Ok(id)
            }
            Some(Published::UnknownTopic(_)) | None => Err(wit::Error::Failed),
        })
    }
}
