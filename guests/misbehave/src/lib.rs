//! Does what functions should not do, each on request: `{"do": "write-then-trap"}`.
//!
//! However it ends, the table `misbehaviour` must hold a row for an attempt if, and only if, that
//! attempt ended well. Every way to end badly has a name of its own in `semel trace`. What it asks of the host in
//! excess is in `greed.rs`: a hostile author goes on after a refusal, and so does this.

use exports::semel::function::handler::Guest;
use semel::function::outbox::{self, Outgoing};
use semel::function::transaction::{self, Value};
use semel::function::types::{HandlerError, Message, Response, Retry};
use semel::function::{delivery, log};
use serde::Deserialize;
use std::hint::black_box;

mod greed;

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
    /// Call itself for ever.
    Recursion,
    /// Use a table that is not there.
    Missing,
    /// End the transaction that is the host's.
    Commit,
    /// A statement that has no end.
    EndlessSql,
    /// A statement that has one, in an hour.
    SlowSql,
    /// A text of 1 GiB, made by the database.
    BigValue,
    /// A million cursors, none of them closed.
    Handles,
    /// A million statements.
    ManyStatements,
    /// A hundred thousand messages.
    ManyPublishes,
    /// Five thousand lines of 1 KiB.
    LogFlood,
    /// A log line of 1 GiB.
    HugeString,
    /// An answer of 100 MB.
    HugeAnswer,
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
                publish(&message)?;
                return retry("asked to fail after a publish");
            }
            Order::Recursion => drop(black_box(recurse(0))),
            Order::Missing => return sql("SELECT value FROM no_such_table"),
            Order::Commit => {
                write(&message, "commit")?;
                let _ = sql::<()>("COMMIT");
            }
            Order::EndlessSql => {
                return sql("WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n");
            }
            Order::SlowSql => return sql(greed::SLOW_SQL),
            Order::BigValue => return sql("SELECT hex(zeroblob(536870912))"),
            Order::Handles => return greed::cursors(),
            Order::ManyStatements => return greed::statements(),
            Order::ManyPublishes => return greed::publishes(&message),
            Order::LogFlood => greed::log_lines(),
            Order::HugeString => greed::huge_string(),
            Order::HugeAnswer => return Ok(Some(greed::huge_answer())),
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

/// One statement that is not expected to end well.
fn sql<T: Default>(text: &str) -> Result<T, HandlerError> {
    transaction::query(text, &[]).map(|_| T::default()).or_else(|error| retry(&error.to_string()))
}

fn publish(message: &Message) -> Result<(), HandlerError> {
    outbox::publish(&outgoing(message)).map(drop).or_else(|error| retry(&error.to_string()))
}

/// The message itself, for somebody else.
fn outgoing(message: &Message) -> Outgoing {
    let Message { group, content_type, body, .. } = message.clone();
    Outgoing { topic: "receipts".to_owned(), group, content_type, headers: Vec::new(), body, delay: None }
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

/// Deeper and deeper. The addition after the call keeps the compiler from making a loop of it.
#[expect(unconditional_recursion, reason = "that is the misbehaviour")]
fn recurse(depth: u64) -> u64 {
    black_box(recurse(black_box(depth + 1))) + 1
}

fn retry<T>(reason: &str) -> Result<T, HandlerError> {
    Err(HandlerError::Retry(Retry { reason: reason.to_owned(), delay: None }))
}
