//! `deferred-http`: linked, so that components which import it deploy; this version does not send.

use super::bindings::semel::function::deferred_http as wit;

pub(crate) struct Unavailable;

impl wit::Host for Unavailable {
    async fn enqueue(&mut self, request: wit::Request) -> wasmtime::Result<Result<String, wit::Error>> {
        let _ = request;
        Ok(Err(wit::Error::Forbidden(
            "deferred-http is not available here: this version of Semel does not send".into(),
        )))
    }
}
