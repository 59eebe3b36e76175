//! Sends a mail for each message, by a service that is reached over HTTP: the effect that no transaction takes back.
//!
//! The request is deferred: a row of the same commit as everything else, sent after it. An attempt that is rolled back sends
//! nothing, and what was committed is sent at least once, with the same `Idempotency-Key` every time: a service that keeps
//! keys sends one mail.
//!
//! A message is an order for a mail. One of the topic `customers` is an event, see `welcome.rs`.

use exports::semel::function::handler::Guest;
use semel::function::deferred_http::{self, Request};
use semel::function::transaction::{self, Error, Value};
use semel::function::types::{HandlerError, Message, Response, Retry};
use serde::Deserialize;

mod welcome;

wit_bindgen::generate!({ path: "../../wit", world: "message-handler" });
export!(Mailer);

struct Mailer;

#[derive(Deserialize)]
struct Order {
    /// Who gets the mail.
    to: String,
    /// Where the service takes mails: a URL.
    service: String,
    /// The topic that wants to know how it ended.
    #[serde(default)]
    reply_topic: Option<String>,
    /// Fail after the request was deferred, on this many attempts.
    #[serde(default)]
    fail: u32,
}

impl Guest for Mailer {
    fn handle(message: Message) -> Result<Option<Response>, HandlerError> {
        if message.topic == welcome::TOPIC {
            return welcome::handle(&message).map(|()| None);
        }
        let order: Order =
            serde_json::from_slice(&message.body).map_err(|e| HandlerError::Reject(format!("the order: {e}")))?;
        transaction::execute(
            "INSERT INTO mails (message_id, recipient) VALUES ($1, $2)",
            &[Value::Text(message.id), Value::Text(order.to.clone())],
        )?;
        let id = send(order.to, order.service, order.reply_topic)?;
        if semel::function::delivery::attempt() <= order.fail {
            return Err(HandlerError::Retry(Retry {
                reason: "asked to fail after the request".to_owned(),
                delay: None,
            }));
        }
        Ok(Some(Response { content_type: Some("text/plain".to_owned()), headers: Vec::new(), body: id.into_bytes() }))
    }
}

/// Has a mail sent, with the commit. Returns the request's id.
fn send(to: String, service: String, reply_topic: Option<String>) -> Result<String, HandlerError> {
    let request = Request {
        method: "POST".to_owned(),
        url: service,
        headers: vec![("content-type".to_owned(), "text/plain".to_owned())],
        body: to.into_bytes(),
        timeout: None,
        reply_topic,
    };
    deferred_http::enqueue(&request).map_err(|error| HandlerError::Reject(format!("the mail cannot be sent: {error}")))
}

impl From<Error> for HandlerError {
    fn from(error: Error) -> Self {
        let reason = match error {
            Error::Parameter(reason) => return Self::Reject(reason),
            Error::Database(refused) => refused.message,
            other => other.to_string(),
        };
        Self::Retry(Retry { reason, delay: None })
    }
}
