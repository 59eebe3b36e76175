//! Welcomes each new customer once: an idempotent receiver.
//!
//! Whoever sends events at least once sends some of them twice. The id of an event is the same each time; it is remembered in the
//! commit that handles the event, so the second one finds it, and nothing is done. (A broker's id comes in the header
//! `semel-source-id`. Without a broker there is none, and the message itself is handled once.)

use serde::Deserialize;

use crate::semel::function::log;
use crate::semel::function::transaction::{self, Value};
use crate::semel::function::types::{HandlerError, Message};

/// The topic that it receives.
pub const TOPIC: &str = "customers";

/// What it needs to know of a customer.
#[derive(Deserialize)]
struct Customer {
    email: String,
}

pub fn handle(message: &Message) -> Result<(), HandlerError> {
    let Some(kind) = header(message, "event-type") else {
        return Err(HandlerError::Reject("the header event-type is missing".to_owned()));
    };
    if kind != "CustomerCreated" {
        return Ok(()); // What else may come of a customer is for others.
    }
    let customer: Customer = serde_json::from_slice(&message.body)
        .map_err(|error| HandlerError::Reject(format!("the body of a {kind}: {error}")))?;
    let id = header(message, "semel-source-id").unwrap_or(&message.id);
    if !remember(id, kind)? {
        say(&format!("Handled before: [{kind}] {id}"));
        return Ok(());
    }
    say(&format!("Handling [{kind}] - Payload: '{}'", String::from_utf8_lossy(&message.body)));
    let service = transaction::query("SELECT url FROM welcome_service LIMIT 1", &[])?;
    if let Some([Value::Text(url)]) = service.rows.first().map(Vec::as_slice) {
        crate::send(customer.email, url.clone(), None)?;
    }
    Ok(())
}

/// False if it was handled before. Of two at once one fails, and is tried again.
fn remember(id: &str, kind: &str) -> Result<bool, HandlerError> {
    let id = Value::Text(id.to_owned());
    let known = transaction::query("SELECT 1 FROM handled WHERE event_id = $1", std::slice::from_ref(&id))?;
    if !known.rows.is_empty() {
        return Ok(false);
    }
    let handled = [id, Value::Text(kind.to_owned())];
    transaction::execute("INSERT INTO handled (event_id, event_type) VALUES ($1, $2)", &handled)?;
    Ok(true)
}

fn header<'a>(message: &'a Message, name: &str) -> Option<&'a str> {
    let found = message.headers.iter().find(|(found, _)| found.eq_ignore_ascii_case(name));
    found.map(|(_, value)| value.as_str())
}

fn say(line: &str) {
    log::write(log::Level::Info, line, &[]);
}
