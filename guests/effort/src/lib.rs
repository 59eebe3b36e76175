//! Does as much work as it is told, of the kind that it is told, and leaves one row: `{"compute": 1000000}`.
//!
//! The same message does the same steps on every attempt, and so uses the same fuel, to the last unit. How long that takes is
//! the machine's business. Only `slow_attempts` looks at the attempt's number.

use exports::semel::function::handler::Guest;
use semel::function::transaction::{self, Error, Value};
use semel::function::types::{HandlerError, Message, Response, Retry};
use semel::function::{context, delivery};
use serde::Deserialize;
use std::hint::black_box;
use wasip2::clocks::monotonic_clock;

wit_bindgen::generate!({ path: "../../wit", world: "message-handler" });
export!(Effort);

struct Effort;

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Order {
    /// Rounds of arithmetic.
    compute: u64,
    /// SQL statements.
    statements: u32,
    /// Calls of the host that need no database.
    calls: u32,
    /// Time to wait, without computing.
    millis: u64,
    /// Attempts that wait; later ones do not.
    slow_attempts: u32,
    /// Fail when everything is done.
    fail: bool,
}

impl Default for Order {
    fn default() -> Self {
        Self { compute: 0, statements: 0, calls: 0, millis: 0, slow_attempts: u32::MAX, fail: false }
    }
}

impl Guest for Effort {
    fn handle(message: Message) -> Result<Option<Response>, HandlerError> {
        let order: Order = serde_json::from_slice(&message.body)
            .map_err(|error| HandlerError::Reject(format!("the body must be an order: {error}")))?;
        compute(order.compute);
        for _ in 0..order.calls {
            black_box(context::random(16));
        }
        if order.millis > 0 && delivery::attempt() <= order.slow_attempts {
            monotonic_clock::subscribe_duration(order.millis * 1_000_000).block();
        }
        // Last, and only then: on SQLite the first statement takes the one write lock.
        for number in 0..order.statements {
            transaction::query("SELECT CAST($1 AS BIGINT) + 1", &[Value::Int64(number.into())])?;
        }
        let attempt = Value::Int64(delivery::attempt().into());
        let row = [Value::Text(message.id), attempt];
        transaction::execute("INSERT INTO efforts (message_id, attempt) VALUES ($1, $2)", &row)?;
        if order.fail {
            return Err(HandlerError::Retry(Retry { reason: "told to fail".to_owned(), delay: None }));
        }
        Ok(None)
    }
}

/// Arithmetic that no compiler can leave out.
fn compute(rounds: u64) {
    let mut number = 1_u64;
    for _ in 0..rounds {
        number = black_box(number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1));
    }
}

impl From<Error> for HandlerError {
    fn from(error: Error) -> Self {
        let reason = match error {
            Error::Database(refused) => refused.message,
            other => other.to_string(),
        };
        Self::Retry(Retry { reason, delay: None })
    }
}
