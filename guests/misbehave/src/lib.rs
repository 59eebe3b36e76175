//! Does what functions should not do, each on request: `{"do": "write-then-trap"}`.
//!
//! However it ends, the table `misbehaviour` must hold a row for an attempt if, and only if, that
//! attempt ended well. Every way to end badly has a name of its own in `semel trace`.

use exports::semel::function::handler::Guest;
use semel::function::outbox::{self, Outgoing};
use semel::function::transaction::{self, Value};
use semel::function::types::{HandlerError, Message, Response, Retry};
use semel::function::{delivery, log};
use serde::Deserialize;
use std::hint::black_box;

wit_bindgen::generate!({ path: "../../wit", world: "message-handler" });
export!(Misbehave);

struct Misbehave;

#[derive(Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case")]
enum Order {
    Ok,
    Error,
    Reject,
    Panic,
    Loop,
    Allocate,
    Log,
    Write,
    WriteThenTrap,
    WriteThenError,
    /// Ignore a statement that failed, and report success.
    Swallow,
    /// Be slow for so long, then write.
    SleepLoop {
        millis: i64,
    },
    PublishThenError,
}

impl Guest for Misbehave {
    fn handle(message: Message) -> Result<Option<Response>, HandlerError> {
        let order = serde_json::from_slice(&message.body)
            .map_err(|error| HandlerError::Reject(format!(r#"the body must be {{"do": ...}}: {error}"#)))?;
        match order {
            Order::Ok => {}
            Order::Error => return retry("asked to fail"),
            Order::Reject => return Err(HandlerError::Reject("asked to reject".to_owned())),
            Order::Panic => panic!("asked to panic"),
            Order::Loop => loop {
                black_box(());
            },
            Order::Allocate => allocate(),
            Order::Log => log_lines(&message),
            Order::Write => write(&message, "write")?,
            Order::WriteThenTrap => {
                write(&message, "write-then-trap")?;
                std::process::abort();
            }
            Order::WriteThenError => {
                write(&message, "write-then-error")?;
                return retry("asked to fail after a write");
            }
            Order::Swallow => {
                write(&message, "swallow")?;
                // The `let _` that makes COMMIT a silent ROLLBACK elsewhere. Here the attempt fails.
                let _ = transaction::execute("INSERT INTO no_such_table VALUES (1)", &[]);
            }
            Order::SleepLoop { millis } => {
                let end = delivery::now() + millis * 1000;
                while delivery::now() < end {}
                write(&message, "sleep-loop")?;
            }
            Order::PublishThenError => {
                publish(message)?;
                return retry("asked to fail after a publish");
            }
        }
        Ok(None)
    }
}

fn write(message: &Message, what: &str) -> Result<(), HandlerError> {
    let sql = "INSERT INTO misbehaviour (message_id, attempt, what) VALUES ($1, $2, $3)";
    let attempt = i64::from(delivery::attempt());
    let params = [Value::Text(message.id.clone()), Value::Int64(attempt), Value::Text(what.to_owned())];
    transaction::execute(sql, &params).map(drop).or_else(|error| retry(&error.to_string()))
}

fn publish(message: Message) -> Result<(), HandlerError> {
    let Message { group, content_type, body, .. } = message;
    let topic = "receipts".to_owned();
    let outgoing = Outgoing { topic, group, content_type, headers: Vec::new(), body, delay: None };
    outbox::publish(&outgoing).map(drop).or_else(|error| retry(&error.to_string()))
}

fn log_lines(message: &Message) {
    let fields = [("message".to_owned(), message.id.clone()), ("attempt".to_owned(), delivery::attempt().to_string())];
    for level in [log::Level::Debug, log::Level::Info, log::Level::Warn, log::Level::Error] {
        log::write(level, "asked to log", &fields);
    }
}

/// Takes memory, and uses it, until there is no more.
fn allocate() -> ! {
    let mut hoard = Vec::new();
    loop {
        hoard.push(black_box(vec![1_u8; 1 << 20]));
    }
}

fn retry<T>(reason: &str) -> Result<T, HandlerError> {
    Err(HandlerError::Retry(Retry { reason: reason.to_owned(), delay: None }))
}
