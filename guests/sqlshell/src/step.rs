//! One step of a script: a statement, or a call of another interface of the same transaction.

use crate::semel::function::context;
use crate::semel::function::deferred_http;
use crate::semel::function::log::{self, Level};
use crate::semel::function::outbox::{self, Outgoing};
use crate::semel::function::state;
use crate::semel::function::transaction::{self, Limit, Row};
use crate::value;
use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};
use std::fmt;

#[derive(Deserialize)]
#[serde(untagged, expecting = r#"a step is {"sql": …} or one call, such as {"savepoint": "name"}"#)]
pub enum Step {
    Statement(Statement),
    Call(Call),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Statement {
    sql: String,
    #[serde(default)]
    params: Vec<Json>,
    /// Ask for the number of changed rows instead of the rows.
    #[serde(default)]
    execute: bool,
    /// Let the host run it later.
    #[serde(default)]
    deferred: bool,
    /// Read through a cursor, so many rows at a time.
    cursor: Option<u32>,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Call {
    Batch(Vec<Statement>),
    Savepoint(String),
    RollbackTo(String),
    Release(String),
    StateGet(String),
    StateSet(String, String),
    StateDelete(String),
    StateAdd(String, i64),
    StateScan(String, u32),
    Publish {
        topic: String,
        body: String,
        group: Option<String>,
    },
    DeferredHttp(String),
    /// What is equal on every attempt, also written to the log, which is kept when the attempt is not.
    Pinned(String),
}

/// What a step reports when it did not work; `kind` names the case of the interface's own error.
#[derive(Debug, Serialize)]
pub struct Error {
    kind: &'static str,
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    sqlstate: Option<String>,
}

impl Step {
    pub fn run(self) -> Result<Json, Error> {
        match self {
            Self::Statement(statement) => statement.run(),
            Self::Call(call) => call.run(),
        }
    }
}

impl Statement {
    fn run(&self) -> Result<Json, Error> {
        let (sql, params) = (self.sql.as_str(), self.params()?);
        if self.deferred {
            transaction::execute_deferred(sql, &params)?;
            return Ok(json!({}));
        }
        if self.execute {
            return Ok(json!({ "changed": transaction::execute(sql, &params)? }));
        }
        let Some(page) = self.cursor else {
            let found = transaction::query(sql, &params)?;
            return Ok(show(&found.columns, found.rows));
        };
        let cursor = transaction::open_cursor(sql, &params)?;
        let mut rows = Vec::new();
        loop {
            match cursor.next(page)? {
                more if more.is_empty() => return Ok(show(&cursor.columns(), rows)),
                more => rows.extend(more),
            }
        }
    }

    fn params(&self) -> Result<Vec<transaction::Value>, Error> {
        let params = self.params.iter().map(value::from_json).collect::<Result<_, _>>();
        params.map_err(|error| Error::new("parameter", error))
    }
}

fn show(columns: &[transaction::Column], rows: Vec<Row>) -> Json {
    let columns: Vec<_> =
        columns.iter().map(|column| json!({ "name": column.name, "type": column.type_name })).collect();
    let rows = rows.into_iter().map(|row| row.into_iter().map(value::to_json).collect());
    json!({ "columns": columns, "rows": rows.collect::<Vec<Json>>() })
}

impl Call {
    fn run(self) -> Result<Json, Error> {
        let result = match self {
            Self::Batch(statements) => json!({ "changed": batch(&statements)? }),
            Self::Savepoint(name) => done(transaction::savepoint(&name)?),
            Self::RollbackTo(name) => done(transaction::rollback_to(&name)?),
            Self::Release(name) => done(transaction::release(&name)?),
            Self::StateGet(key) => json!({ "value": state::get(&key, true)?.map(text) }),
            Self::StateSet(key, value) => done(state::set(&key, value.as_bytes())?),
            Self::StateDelete(key) => json!({ "deleted": state::delete(&key)? }),
            Self::StateAdd(key, delta) => json!({ "value": state::add(&key, delta)? }),
            Self::StateScan(prefix, limit) => {
                let entries = state::scan(&prefix, None, limit)?.into_iter();
                json!({ "entries": entries.map(|entry| json!([entry.key, text(entry.value)])).collect::<Vec<_>>() })
            }
            Self::Publish { topic, body, group } => {
                let body = body.into_bytes();
                let message = Outgoing { topic, group, content_type: None, headers: Vec::new(), body, delay: None };
                json!({ "id": outbox::publish(&message)? })
            }
            Self::DeferredHttp(url) => {
                let (headers, body, method) = (Vec::new(), Vec::new(), "POST".to_owned());
                let request = deferred_http::Request { method, url, headers, body, timeout: None, reply_topic: None };
                json!({ "id": deferred_http::enqueue(&request)? })
            }
            Self::Pinned(label) => pinned(&label),
        };
        Ok(result)
    }
}

fn batch(statements: &[Statement]) -> Result<Vec<u64>, Error> {
    let prepare =
        |statement: &Statement| Ok(transaction::Statement { sql: statement.sql.clone(), params: statement.params()? });
    let statements = statements.iter().map(prepare).collect::<Result<Vec<_>, Error>>()?;
    transaction::execute_batch(&statements).map_err(|(place, error)| {
        let error = Error::from(error);
        Error { message: format!("statement {place} of the batch: {}", error.message), ..error }
    })
}

fn pinned(label: &str) -> Json {
    let facts = json!({
        "key": context::idempotency_key(label),
        "random": [context::random(8), context::random(8)],
        "time": context::logical_time(),
        "function": context::function_name(),
        "guarantee": format!("{:?}", context::guarantee()),
    });
    log::write(Level::Info, &facts.to_string(), &[]);
    facts
}

fn done((): ()) -> Json {
    json!({})
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8_lossy(&bytes).into_owned()
}

impl Error {
    fn new(kind: &'static str, message: impl fmt::Display) -> Self {
        Self { kind, message: message.to_string(), sqlstate: None }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, message, sqlstate } = self;
        match sqlstate {
            Some(sqlstate) => write!(f, "{kind} ({sqlstate}): {message}"),
            None => write!(f, "{kind}: {message}"),
        }
    }
}

impl From<transaction::Error> for Error {
    fn from(error: transaction::Error) -> Self {
        use transaction::Error as E;
        match error {
            E::Database(error) => Self { sqlstate: Some(error.sqlstate), ..Self::new("database", error.message) },
            E::Failed => Self::new("failed", "an earlier statement failed"),
            E::Doomed(reason) => Self::new("doomed", reason),
            E::Parameter(reason) => Self::new("parameter", reason),
            E::Forbidden(reason) => Self::new("forbidden", reason),
            E::Limit(limit) => Self::new("limit", limit_name(limit)),
            E::NoSavepoint => Self::new("no-savepoint", "no savepoint has this name"),
        }
    }
}

fn limit_name(limit: Limit) -> &'static str {
    match limit {
        Limit::Rows => "rows",
        Limit::Bytes => "bytes",
        Limit::Statements => "statements",
        Limit::Cursors => "cursors",
    }
}

impl From<state::Error> for Error {
    fn from(error: state::Error) -> Self {
        use state::Error as E;
        match error {
            E::InvalidKey => Self::new("invalid-key", "a key has 1 to 512 bytes"),
            E::TooLarge(max) => Self::new("too-large", format_args!("at most {max} bytes")),
            E::NotACounter => Self::new("not-a-counter", "the value is not a counter"),
            E::Failed => Self::new("failed", "an earlier statement failed"),
        }
    }
}

impl From<deferred_http::Error> for Error {
    fn from(error: deferred_http::Error) -> Self {
        use deferred_http::Error as E;
        match error {
            E::InvalidUrl => Self::new("invalid-url", "not an absolute http: or https: URL"),
            E::Forbidden(reason) => Self::new("forbidden", reason),
            E::TooLarge(max) => Self::new("too-large", format_args!("at most {max} bytes")),
            E::UnknownTopic(topic) => Self::new("unknown-topic", topic),
            E::Failed => Self::new("failed", "an earlier statement failed"),
        }
    }
}

impl From<outbox::Error> for Error {
    fn from(error: outbox::Error) -> Self {
        use outbox::Error as E;
        match error {
            E::UnknownTopic(topic) => Self::new("unknown-topic", topic),
            E::Forbidden(reason) => Self::new("forbidden", reason),
            E::TooLarge(max) => Self::new("too-large", format_args!("at most {max} bytes")),
            E::Quota(max) => Self::new("quota", format_args!("at most {max} messages")),
            E::Failed => Self::new("failed", "an earlier statement failed"),
        }
    }
}
