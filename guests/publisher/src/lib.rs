//! Writes something, then publishes a message: in the ways that "Why can't we have exactly-once message processing?" goes
//! through, and in the way that has no gap.
//!
//! Its first three variants use a database and a broker out in the world, as most services do: records and counters of a plain
//! HTTP server. Whatever they do, there is a place for a crash between two steps. The last one writes and publishes in the
//! transaction of the message. It asks the server for nothing but an answer, so that an experiment can break it off there.

use exports::semel::function::handler::Guest;
use semel::function::outbox::{self, Outgoing};
use semel::function::transaction::{self, Value};
use semel::function::types::{HandlerError, Message, Response, Retry};
use serde::Deserialize;
use wasip2::http::outgoing_handler;
use wasip2::http::types::{Fields, Method, OutgoingRequest, Scheme};

wit_bindgen::generate!({ path: "../../wit", world: "message-handler" });
export!(Publisher);

struct Publisher;

#[derive(Deserialize)]
struct Order {
    variant: Variant,
    /// Host and port of the database and the broker.
    server: String,
    /// What is written and published.
    id: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Variant {
    /// A second write is a uniqueness error.
    Unique,
    /// A second write does nothing.
    Idempotent,
    /// And the publication is recorded.
    Recorded,
    /// Write and publication are one commit with the acknowledgement.
    Outbox,
}

impl Guest for Publisher {
    fn handle(message: Message) -> Result<Option<Response>, HandlerError> {
        let order: Order = serde_json::from_slice(&message.body)
            .map_err(|error| HandlerError::Reject(format!("the body must be an order: {error}")))?;
        match order.variant {
            Variant::Unique => {
                if !order.write()? {
                    return retry("a row with this key is there already");
                }
                order.publish()?;
            }
            Variant::Idempotent => {
                order.write()?;
                order.publish()?;
            }
            Variant::Recorded => {
                order.write()?;
                if !order.is_published()? {
                    order.publish()?;
                    order.record()?;
                }
            }
            Variant::Outbox => {
                order.ask(&Method::Get, "/nothing/before")?;
                order.insert()?;
                order.ask(&Method::Get, "/nothing/between")?;
                order.outbox()?;
                order.ask(&Method::Get, "/nothing/after")?;
            }
        }
        Ok(None)
    }
}

impl Order {
    /// False if it was there already.
    fn write(&self) -> Result<bool, HandlerError> {
        Ok(self.ask(&Method::Put, &format!("/records/written-{}", self.id))? == 201)
    }

    fn publish(&self) -> Result<(), HandlerError> {
        self.ask(&Method::Post, &format!("/counters/published-{}", self.id)).map(drop)
    }

    fn is_published(&self) -> Result<bool, HandlerError> {
        Ok(self.ask(&Method::Get, &format!("/records/published-{}", self.id))? == 200)
    }

    fn record(&self) -> Result<(), HandlerError> {
        self.ask(&Method::Put, &format!("/records/published-{}", self.id)).map(drop)
    }

    fn insert(&self) -> Result<(), HandlerError> {
        let id = [Value::Text(self.id.clone())];
        let inserted = transaction::execute("INSERT INTO written (id) VALUES ($1)", &id);
        inserted.map(drop).or_else(|error| retry(&error.to_string()))
    }

    fn outbox(&self) -> Result<(), HandlerError> {
        let event = Outgoing {
            topic: "published".to_owned(),
            group: None,
            content_type: Some("text/plain".to_owned()),
            headers: Vec::new(),
            body: self.id.clone().into_bytes(),
            delay: None,
        };
        outbox::publish(&event).map(drop).or_else(|error| retry(&error.to_string()))
    }

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
