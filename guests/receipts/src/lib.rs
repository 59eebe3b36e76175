//! Keeps the receipts that `transfer` publishes: the other end of an outbox.
//!
//! There is no "have I seen this one?" here, and none is needed. The row and the acknowledgement of
//! the message are one commit: either both are there, and the message is never handled again, or
//! neither is, and there is nothing to find. The primary key only shows it: it is never violated.

use exports::semel::function::handler::Guest;
use semel::function::transaction::{self, Error, Value};
use semel::function::types::{HandlerError, Message, Response, Retry};

wit_bindgen::generate!({ path: "../../wit", world: "message-handler" });
export!(Receipts);

struct Receipts;

impl Guest for Receipts {
    fn handle(message: Message) -> Result<Option<Response>, HandlerError> {
        let body = String::from_utf8(message.body)
            .map_err(|_| HandlerError::Reject("a receipt must be text (UTF-8)".to_owned()))?;
        transaction::execute(
            "INSERT INTO receipts (message_id, body) VALUES ($1, $2)",
            &[Value::Text(message.id), Value::Text(body)],
        )?;
        Ok(None)
    }
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
