//! What a guest's transaction asks of the engine's tables: `state` and `publish`, by way of the procedures of 0003_api.sql.

use std::collections::{HashMap, HashSet};

use serde::Serialize;
use sqlx::mysql::{MySqlConnection, MySqlRow};
use sqlx::{AssertSqlSafe, Error, Row};

use super::group::Groups;
use super::guest_sql::refused;
use super::list::list;
use crate::clock::micros;
use crate::message::{Event, message_id};
use crate::store::{Published, SqlError, StateOp, StateReply};

const STATE_GET: &str = include_str!("state_get.sql");
const STATE_SET: &str = include_str!("state_set.sql");
const STATE_DELETE: &str = include_str!("state_delete.sql");
const STATE_ADD: &str = include_str!("state_add.sql");
const STATE_SCAN: &str = include_str!("state_scan.sql");
const SUBSCRIBERS: &str = include_str!("subscribers_published.sql");
const PUBLISH: &str = include_str!("publish.sql");

/// Bytes that one scan may return.
const SCAN_BYTES: i64 = 8 << 20;
/// Bytes of bodies beyond which no further event is put into one statement.
const STEP_BYTES: usize = 1 << 20;

/// A statement of the host's own in an app's session, whose database is another one than the engine's.
pub(super) fn text(sql: &str, engine: &str) -> AssertSqlSafe<String> {
    AssertSqlSafe(sql.replace("ENGINE.", &format!("{engine}.")))
}

/// One operation on the key-value store of the claim with this number.
pub(super) async fn state(
    connection: &mut MySqlConnection,
    engine: &str,
    seq: i64,
    token: [u8; 16],
    op: StateOp,
) -> Result<StateReply, SqlError> {
    run(connection, engine, seq, &token, op).await.map_err(refused)
}

async fn run(
    connection: &mut MySqlConnection,
    engine: &str,
    seq: i64,
    token: &[u8],
    op: StateOp,
) -> Result<StateReply, Error> {
    let call = |sql: &str| sqlx::query(text(sql, engine)).bind(seq).bind(token.to_vec());
    let one = |rows: Vec<MySqlRow>| rows.into_iter().next().ok_or(Error::RowNotFound);
    Ok(match op {
        StateOp::Get { key } => {
            let rows = call(STATE_GET).bind(key.into_bytes()).fetch_all(connection).await?;
            StateReply::Value(rows.first().map(|row| row.try_get(0)).transpose()?)
        }
        StateOp::Set { key, value } => {
            call(STATE_SET).bind(key.into_bytes()).bind(value).execute(connection).await?;
            StateReply::Done
        }
        StateOp::Delete { key } => {
            let rows = call(STATE_DELETE).bind(key.into_bytes()).fetch_all(connection).await?;
            StateReply::Deleted(one(rows)?.try_get::<i64, _>(0)? != 0)
        }
        StateOp::Add { key, delta } => {
            let rows = call(STATE_ADD).bind(key.into_bytes()).bind(delta).fetch_all(connection).await?;
            let sum: Option<i64> = one(rows)?.try_get(0)?;
            sum.map_or(StateReply::NotACounter, StateReply::Sum)
        }
        StateOp::Scan { prefix, after, limit } => {
            let scan = call(STATE_SCAN).bind(prefix.into_bytes()).bind(after.map(String::into_bytes));
            let rows = scan.bind(i64::from(limit)).bind(SCAN_BYTES).fetch_all(connection).await?;
            StateReply::Entries(rows.iter().map(entry).collect::<Result<_, _>>()?)
        }
    })
}

fn entry(row: &MySqlRow) -> Result<(String, Vec<u8>), Error> {
    let key = String::from_utf8(row.try_get(0)?).map_err(|error| Error::Decode(error.into()))?;
    Ok((key, row.try_get(1)?))
}

/// Puts events into the queue as part of the transaction; all or none. Adds the groups that are to be put in order.
pub(super) async fn publish(
    connection: &mut MySqlConnection,
    engine: &str,
    seq: i64,
    token: [u8; 16],
    events: Vec<Event>,
    groups: &mut Groups,
) -> Result<Published, SqlError> {
    let topics: HashSet<&str> = events.iter().map(|event| event.topic.as_str()).collect();
    let find = sqlx::query_as(text(SUBSCRIBERS, engine)).bind(seq).bind(&token[..]).bind(list(topics));
    let found: Vec<(String, String)> = find.fetch_all(&mut *connection).await.map_err(refused)?;
    let mut targets: HashMap<String, Vec<String>> = HashMap::new();
    found.into_iter().for_each(|(topic, function)| targets.entry(topic).or_default().push(function));
    let mut wanted = Vec::with_capacity(events.len());
    for event in &events {
        let Some(functions) = targets.get(&event.topic) else {
            return Ok(Published::UnknownTopic(event.topic.clone()));
        };
        wanted.push((event, functions));
    }
    let (mut messages, mut bodies) = (Vec::new(), Bodies::default());
    for (place, (event, functions)) in wanted.iter().enumerate() {
        let body = bodies.add(&event.body);
        for function in *functions {
            messages.push(Message::of(event, function, body));
            groups.add(function, event.group.as_deref());
        }
        if bodies.0.len() >= STEP_BYTES || place + 1 == wanted.len() {
            let publish = sqlx::query(text(PUBLISH, engine)).bind(seq).bind(&token[..]);
            let publish = publish.bind(list(std::mem::take(&mut messages))).bind(std::mem::take(&mut bodies).0);
            publish.execute(&mut *connection).await.map_err(refused)?;
        }
    }
    Ok(Published::Done)
}

/// A message, as `publish` wants it.
#[derive(Serialize)]
struct Message<'e> {
    id: String,
    event: &'e str,
    function: &'e str,
    topic: &'e str,
    #[serde(skip_serializing_if = "Option::is_none")]
    group: Option<&'e str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content_type: Option<&'e str>,
    headers: String,
    place: usize,
    length: usize,
    priority: i32,
    delay: i64,
}

impl<'e> Message<'e> {
    fn of(event: &'e Event, function: &'e str, (place, length): (usize, usize)) -> Self {
        Self {
            id: message_id(&event.id, function),
            event: &event.id,
            function,
            topic: &event.topic,
            group: event.group.as_deref(),
            content_type: event.content_type.as_deref(),
            headers: serde_json::to_string(&event.headers).unwrap_or_else(|_| "[]".into()),
            place,
            length,
            priority: event.priority,
            delay: micros(event.delay),
        }
    }
}

/// Bodies of several messages in one value.
#[derive(Default)]
pub(super) struct Bodies(pub(super) Vec<u8>);

impl Bodies {
    /// Where it is (from 1), and its length.
    pub(super) fn add(&mut self, body: &[u8]) -> (usize, usize) {
        let place = self.0.len() + 1;
        self.0.extend_from_slice(body);
        (place, body.len())
    }
}
