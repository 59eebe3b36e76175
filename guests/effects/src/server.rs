//! A POST to another server by `wasi:http`, and its status. The one thing here that no rollback takes back.

use wasip2::http::outgoing_handler;
use wasip2::http::types::{Fields, Method, OutgoingBody, OutgoingRequest, Scheme};

/// Says so little because the host says the rest: the attempt's log and the ledger have the call.
pub fn post(url: &str, body: &str) -> Result<u16, String> {
    let wrong = |what: &str| format!("the call is not right: {what}");
    let (scheme, rest) = url.split_once("://").ok_or_else(|| wrong("the URL"))?;
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let scheme = if scheme == "https" { Scheme::Https } else { Scheme::Http };
    let request = OutgoingRequest::new(Fields::new());
    request.set_method(&Method::Post).map_err(|()| wrong("the method"))?;
    request.set_scheme(Some(&scheme)).map_err(|()| wrong("the scheme"))?;
    request.set_authority(Some(authority)).map_err(|()| wrong("the server"))?;
    request.set_path_with_query(Some(path)).map_err(|()| wrong("the path"))?;
    let outgoing = request.body().map_err(|()| wrong("the body"))?;
    let future = outgoing_handler::handle(request, None).map_err(|error| error.to_string())?;
    let stream = outgoing.write().map_err(|()| wrong("the body"))?;
    stream.blocking_write_and_flush(body.as_bytes()).map_err(|error| error.to_string())?;
    drop(stream);
    OutgoingBody::finish(outgoing, None).map_err(|error| error.to_string())?;
    future.subscribe().block();
    let answer = future.get().ok_or("the answer is not there")?.map_err(|()| "the answer was taken")?;
    Ok(answer.map_err(|error| error.to_string())?.status())
}
