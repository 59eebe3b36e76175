//! Counts messages: the smallest function whose result shows whether Semel keeps its promise.
//!
//! `n = n + 1` is deliberately not idempotent, and nothing here looks for duplicates. The count is
//! right only if the host commits it once per message, in the commit that acknowledges the message.
//! Kill the host in the middle of ten thousand of them: the answer is still 10000.
//!
//! The SQL is the portable kind, and runs unchanged on SQLite, PostgreSQL and MariaDB.

use exports::semel::function::handler::Guest;
use semel::function::transaction::{self, Error, Value};
use semel::function::types::{HandlerError, Message, Response, Retry};
use serde::Serialize;

wit_bindgen::generate!({ path: "../../wit", world: "message-handler" });
export!(Counter);

struct Counter;

#[derive(Serialize)]
struct Answer<'a> {
    counter: &'a str,
    count: i64,
}

impl Guest for Counter {
    fn handle(message: Message) -> Result<Option<Response>, HandlerError> {
        let counter = counter_of(&message).ok_or_else(|| {
            let rule = "name a counter, 1 to 100 characters, in the path or as the body";
            HandlerError::Reject(rule.to_owned())
        })?;
        let count = count_up(counter, &message.id)?;
        Ok(Some(Response {
            content_type: Some("application/json".to_owned()),
            headers: Vec::new(),
            body: serde_json::to_vec(&Answer { counter, count }).expect("text and a number are JSON"),
        }))
    }
}

/// The counter that the route names (`/count/{counter}`), or else the body (`POST /fn/counter`).
fn counter_of(message: &Message) -> Option<&str> {
    let in_path = message.headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("semel-path-counter"));
    let counter = match in_path {
        Some((_, value)) => value,
        None => str::from_utf8(&message.body).ok()?.trim(),
    };
    let fits = (1..=100).contains(&counter.chars().count()) && !counter.contains(char::is_control);
    fits.then_some(counter)
}

/// Nobody waits for the answer to the UPDATE, so it travels with the SELECT, and what comes next behind them. Whether there was
/// a row to count in is seen in what it shows of who counted last.
fn count_up(counter: &str, message: &str) -> Result<i64, HandlerError> {
    let [id, by] = [counter, message].map(|text| Value::Text(text.to_owned()));
    transaction::execute_deferred(
        "UPDATE counters SET n = n + 1, counted_by = $2 WHERE id = $1",
        &[id.clone(), by.clone()],
    )?;
    let found = transaction::query("SELECT n, counted_by FROM counters WHERE id = $1", std::slice::from_ref(&id))?;
    match found.rows.first().map(Vec::as_slice) {
        Some([Value::Int64(n), Value::Text(last)]) if last == message => Ok(*n),
        Some(_) => Err(retry("somebody else has made the counter since we looked for it")),
        None => {
            // Two messages may both find no row. The database lets one of them in; the other is tried again.
            transaction::execute("INSERT INTO counters (id, n, counted_by) VALUES ($1, 1, $2)", &[id, by])?;
            Ok(1)
        }
    }
}

impl From<Error> for HandlerError {
    fn from(error: Error) -> Self {
        let reason = match error {
            Error::Parameter(reason) => return Self::Reject(reason),
            Error::Database(refused) => refused.message,
            other => other.to_string(),
        };
        retry(&reason)
    }
}

fn retry(reason: &str) -> HandlerError {
    HandlerError::Retry(Retry { reason: reason.to_owned(), delay: None })
}
