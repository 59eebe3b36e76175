//! Takes customers: a row, and the event that tells others of it, in one commit. The outbox pattern, without an outbox table, a
//! relay or a broker's client of its own.
//!
//! The event leaves with the commit, for every function that subscribes to the topic and for every broker that `semel.toml` names
//! for it. An attempt that is rolled back tells nobody. Id and time are equal on every attempt: the host derives them from the
//! message.

use exports::semel::function::handler::Guest;
use semel::function::context;
use semel::function::outbox::{self, Outgoing};
use semel::function::transaction::{self, Value};
use semel::function::types::{HandlerError, Message, Response, Retry};
use serde::{Deserialize, Serialize};

wit_bindgen::generate!({ path: "../../wit", world: "message-handler" });
export!(Customers);

struct Customers;

/// What the caller says.
#[derive(Deserialize)]
struct Wanted {
    email: String,
    name: String,
}

/// As the caller and the receivers of the event see it.
#[derive(Serialize)]
struct Customer {
    id: String,
    name: String,
    email: String,
    #[serde(rename = "CreatedAt")]
    created_at: String,
    #[serde(rename = "UpdatedAt")]
    updated_at: &'static str,
}

/// Of a customer that was never updated.
const NEVER: &str = "0001-01-01T00:00:00Z";

impl Guest for Customers {
    fn handle(message: Message) -> Result<Option<Response>, HandlerError> {
        let customer = Customer::new(Wanted::parse(&message.body)?)?;
        customer.insert()?;
        let document = serde_json::to_vec(&customer).expect("texts are JSON");
        customer.publish(document.clone())?;
        Ok(Some(Response { content_type: Some("application/json".to_owned()), headers: Vec::new(), body: document }))
    }
}

impl Wanted {
    fn parse(body: &[u8]) -> Result<Self, HandlerError> {
        let Self { email, name } = serde_json::from_slice(body)
            .or_else(|error| reject(format!(r#"the body must be {{"email", "name"}}: {error}"#)))?;
        let (email, name) = (email.trim().to_owned(), name.trim().to_owned());
        let parts = email.split_once('@').filter(|(user, host)| !user.is_empty() && !host.is_empty());
        if parts.is_none() || email.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return reject("email must be an address, as in test@example.com");
        }
        if email.chars().count() > 254 {
            return reject("email has at most 254 characters");
        }
        if name.is_empty() || name.chars().count() > 200 || name.contains(char::is_control) {
            return reject("name must have 1 to 200 characters, none of them control characters");
        }
        Ok(Self { email, name })
    }
}

impl Customer {
    fn new(Wanted { email, name }: Wanted) -> Result<Self, HandlerError> {
        let created_at = jiff::Timestamp::from_microsecond(context::logical_time());
        let created_at = created_at.or_else(|error| reject(format!("the time of acceptance: {error}")))?.to_string();
        Ok(Self { id: uuid(&context::random(16)), name, email, created_at, updated_at: NEVER })
    }

    fn insert(&self) -> Result<(), HandlerError> {
        let known = transaction::query("SELECT id FROM customers WHERE email = $1", &[text(&self.email)])?;
        if !known.rows.is_empty() {
            return reject(format!("there is a customer with the email {} already", self.email));
        }
        // Two messages may both find nobody. The database lets one of them in; the other is tried again, and refused.
        transaction::execute(
            "INSERT INTO customers (id, email, name, created_at) VALUES ($1, $2, $3, $4)",
            &[text(&self.id), text(&self.email), text(&self.name), text(&self.created_at)],
        )?;
        Ok(())
    }

    fn publish(&self, body: Vec<u8>) -> Result<(), HandlerError> {
        let event = Outgoing {
            topic: "customers".to_owned(),
            group: Some(self.id.clone()),
            content_type: Some("application/json".to_owned()),
            headers: vec![("event-type".to_owned(), "CustomerCreated".to_owned())],
            body,
            delay: None,
        };
        outbox::publish(&event).map(drop).map_err(|error| retry(error.to_string()))
    }
}

/// Sixteen random bytes as a UUID of version 4.
fn uuid(random: &[u8]) -> String {
    let mut text = String::new();
    for (place, byte) in random.iter().enumerate() {
        let byte = match place {
            6 => byte & 0x0f | 0x40,
            8 => byte & 0x3f | 0x80,
            _ => *byte,
        };
        if [4, 6, 8, 10].contains(&place) {
            text.push('-');
        }
        text.push_str(&format!("{byte:02x}"));
    }
    text
}

fn text(text: &str) -> Value {
    Value::Text(text.to_owned())
}

fn reject<T>(reason: impl Into<String>) -> Result<T, HandlerError> {
    Err(HandlerError::Reject(reason.into()))
}

fn retry(reason: String) -> HandlerError {
    HandlerError::Retry(Retry { reason, delay: None })
}

impl From<transaction::Error> for HandlerError {
    fn from(error: transaction::Error) -> Self {
        match error {
            transaction::Error::Parameter(reason) => Self::Reject(reason),
            transaction::Error::Database(refused) => retry(refused.message),
            other => retry(other.to_string()),
        }
    }
}
