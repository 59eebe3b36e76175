//! Sends a mail by the protocol of "Why can't we have exactly-once message processing?": lock, check, send, record, unlock.
//!
//! The lock and the record are in a service out in the world, as in the essay: inside of one transaction nobody could see them
//! before the mail is sent. "This is pretty good, but not perfect": `semel experiment email` shows where it is not. See
//! `mailer` for a request that is a part of the commit instead.

use exports::semel::function::handler::Guest;
use semel::function::types::{HandlerError, Message, Response, Retry};
use serde::Deserialize;
use wasip2::http::outgoing_handler;
use wasip2::http::types::{Fields, Method, OutgoingRequest, Scheme};

wit_bindgen::generate!({ path: "../../wit", world: "message-handler" });
export!(Postman);

struct Postman;

#[derive(Deserialize)]
struct Order {
    /// Host and port of the locks, the records, and the provider that sends.
    server: String,
    /// Which mail.
    id: String,
    /// How long a lock holds if nobody releases it.
    lock_millis: u64,
}

impl Guest for Postman {
    fn handle(message: Message) -> Result<Option<Response>, HandlerError> {
        let order: Order = serde_json::from_slice(&message.body)
            .map_err(|error| HandlerError::Reject(format!("the body must be an order: {error}")))?;
        let Order { id, lock_millis, .. } = &order;
        if order.ask(&Method::Put, &format!("/locks/{id}?millis={lock_millis}"))? != 201 {
            return retry("somebody holds the lock");
        }
        if order.ask(&Method::Get, &format!("/records/{id}"))? != 200 {
            order.ask(&Method::Post, &format!("/counters/{id}"))?;
            order.ask(&Method::Put, &format!("/records/{id}"))?;
        }
        order.ask(&Method::Delete, &format!("/locks/{id}"))?;
        Ok(None)
    }
}

impl Order {
    /// One request, and the status of its answer.
    fn ask(&self, method: &Method, path: &str) -> Result<u16, HandlerError> {
        let request = OutgoingRequest::new(Fields::new());
        let made = request
            .set_method(method)
            .and_then(|()| request.set_scheme(Some(&Scheme::Http)))
            .and_then(|()| request.set_authority(Some(&self.server)))
            .and_then(|()| request.set_path_with_query(Some(path)));
        if made.is_err() {
            return retry("the server's address is none");
        }
        let called = outgoing_handler::handle(request, None).or_else(|error| retry(&error.to_string()))?;
        called.subscribe().block();
        match called.get() {
            Some(Ok(Ok(answer))) if answer.status() < 500 => Ok(answer.status()),
            Some(Ok(Ok(answer))) => retry(&format!("{path}: {}", answer.status())),
            Some(Ok(Err(error))) => retry(&format!("{path}: {error}")),
            _ => retry(&format!("{path}: no answer")),
        }
    }
}

fn retry<T>(reason: &str) -> Result<T, HandlerError> {
    Err(HandlerError::Retry(Retry { reason: reason.to_owned(), delay: None }))
}
