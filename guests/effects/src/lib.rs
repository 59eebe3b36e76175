//! One effect of every class, so that each can be counted when it is over: which of them happened once, which twice?
//!
//! Nothing here is idempotent, and nothing looks for duplicates: a row more for each run that commits, one added to a
//! counter, one receipt published, one request deferred, one server called. The call stands between two rows, so that a host can die before
//! and after it with the transaction open. `semel experiment crash-matrix` kills hosts at every step of this.
//!
//! The server is told which message it is for. A real one would look at `Idempotency-Key`, which is the same on every
//! attempt and which the host sends along; the one of the experiment counts.

mod server;

use exports::semel::function::handler::Guest;
use semel::function::deferred_http::{self, Request};
use semel::function::log::{self, Level};
use semel::function::outbox::{self, Outgoing};
use semel::function::transaction::{self, Value};
use semel::function::types::{HandlerError, Message, Response, Retry};
use semel::function::{delivery, state};
use serde::Deserialize;
use serde_json::json;

wit_bindgen::generate!({ path: "../../wit", world: "message-handler" });
export!(Effects);

struct Effects;

#[derive(Deserialize)]
#[serde(untagged, expecting = r#"the body must be {"call": URL}, {"count": MESSAGE} or {}"#)]
enum Order {
    /// What became of the effects of a message.
    Count { count: String },
    /// One effect of every class.
    Act {
        /// Whom to call, now and after the commit. Without it nobody is called, and all effects are of the transaction.
        #[serde(default)]
        call: Option<String>,
        /// So many attempts fail at the end, with all effects done.
        #[serde(default)]
        fail: u32,
        /// So many attempts trap there.
        #[serde(default)]
        trap: u32,
    },
}

impl Guest for Effects {
    fn handle(message: Message) -> Result<Option<Response>, HandlerError> {
        let order = serde_json::from_slice(&message.body).map_err(|error| HandlerError::Reject(error.to_string()))?;
        let answer = match order {
            Order::Count { count } => count_of(&count)?,
            Order::Act { call, fail, trap } => {
                let status = act(&message.id, call.as_deref())?;
                end(fail, trap)?;
                // Whose effects these are: of the attempt that says so, in the same commit.
                json!({ "status": status, "attempt": delivery::attempt() })
            }
        };
        let content_type = Some("application/json".to_owned());
        Ok(Some(Response { content_type, headers: Vec::new(), body: answer.to_string().into_bytes() }))
    }
}

/// All effects. Returns what the server has answered.
fn act(id: &str, url: Option<&str>) -> Result<Option<u16>, HandlerError> {
    insert(id, "before")?;
    state::add(id, 1).map_err(|error| retry(error.to_string()))?;
    let status = url.map(|url| server::post(url, id)).transpose().map_err(retry)?;
    if let Some(status) = status {
        log::write(Level::Info, "the server has answered", &[("status".to_owned(), status.to_string())]);
    }
    insert(id, "after")?;
    let receipt = Outgoing {
        topic: "receipts".to_owned(),
        group: None,
        content_type: None,
        headers: Vec::new(),
        body: id.as_bytes().to_vec(),
        delay: None,
    };
    outbox::publish(&receipt).map_err(|error| retry(error.to_string()))?;
    if let Some(url) = url {
        defer(url, format!("deferred {id}"))?;
    }
    Ok(status)
}

/// The first attempts do not end well, if they were told so.
fn end(fail: u32, trap: u32) -> Result<(), HandlerError> {
    if delivery::attempt() <= trap {
        std::process::abort();
    }
    if delivery::attempt() <= fail {
        return Err(retry("as it was told to".to_owned()));
    }
    Ok(())
}

/// Asks for a request that is sent after the commit.
fn defer(url: &str, body: String) -> Result<(), HandlerError> {
    let request = Request {
        method: "POST".to_owned(),
        url: url.to_owned(),
        headers: Vec::new(),
        body: body.into_bytes(),
        timeout: None,
        reply_topic: None,
    };
    deferred_http::enqueue(&request).map_err(|error| retry(error.to_string()))?;
    Ok(())
}

fn insert(id: &str, step: &str) -> Result<(), HandlerError> {
    transaction::execute("INSERT INTO effects (message_id, step) VALUES ($1, $2)", &[text(id), text(step)])?;
    Ok(())
}

/// How often each effect of a message is there.
fn count_of(id: &str) -> Result<serde_json::Value, HandlerError> {
    let rows = "SELECT count(*) FROM effects WHERE message_id = $1 AND step = $2";
    let counter = state::get(id, false).map_err(|error| retry(error.to_string()))?;
    let counter = counter.and_then(|bytes| String::from_utf8(bytes).ok()?.parse::<i64>().ok());
    Ok(json!({
        "before": number(rows, &[text(id), text("before")])?,
        "after": number(rows, &[text(id), text("after")])?,
        "state": counter.unwrap_or(0),
        "receipts": number("SELECT count(*) FROM receipts WHERE body = $1", &[text(id)])?,
    }))
}

fn number(sql: &str, params: &[Value]) -> Result<i64, HandlerError> {
    let found = transaction::query(sql, params)?;
    match found.rows.first().map(Vec::as_slice) {
        Some([Value::Int64(number)]) => Ok(*number),
        other => Err(retry(format!("{other:?} is no number"))),
    }
}

fn text(text: &str) -> Value {
    Value::Text(text.to_owned())
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
