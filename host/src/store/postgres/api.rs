//! What a guest's transaction asks of the engine's tables: `state` and `publish`, by way of the schema `semel_api`.

use std::collections::HashMap;

use sqlx::Row;
use sqlx::postgres::PgConnection;

use super::accept::Messages;
use super::guest_sql::refused;
use crate::message::Event;
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

/// One operation on the key-value store.
pub(super) async fn state(sql: &mut PgConnection, token: [u8; 16], op: StateOp) -> Result<StateReply, SqlError> {
    run(sql, token, op).await.map_err(refused)
}

async fn run(sql: &mut PgConnection, token: [u8; 16], op: StateOp) -> Result<StateReply, sqlx::Error> {
    let token = token.to_vec();
    Ok(match op {
        StateOp::Get { key } => {
            let get = sqlx::query_scalar(STATE_GET).bind(token).bind(key).bind(false);
            StateReply::Value(get.fetch_one(sql).await?)
        }
        StateOp::Set { key, value } => {
            sqlx::query(STATE_SET).bind(token).bind(key).bind(value).execute(sql).await?;
            StateReply::Done
        }
        StateOp::Delete { key } => {
            let delete = sqlx::query_scalar(STATE_DELETE).bind(token).bind(key);
            StateReply::Deleted(delete.fetch_one(sql).await?)
        }
        StateOp::Add { key, delta } => {
            let add = sqlx::query_scalar(STATE_ADD).bind(token).bind(key).bind(delta);
            let sum: Option<i64> = add.fetch_one(sql).await?;
            sum.map_or(StateReply::NotACounter, StateReply::Sum)
        }
        StateOp::Scan { prefix, after, limit } => {
            let scan =
                sqlx::query(STATE_SCAN).bind(token).bind(prefix).bind(after).bind(i64::from(limit)).bind(SCAN_BYTES);
            let rows = scan.fetch_all(sql).await?;
            StateReply::Entries(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
        }
    })
}

/// Puts events into the queue as part of the transaction; all or none.
pub(super) async fn publish(
    sql: &mut PgConnection,
    token: [u8; 16],
    events: Vec<Event>,
) -> Result<Published, SqlError> {
    let topics: Vec<&str> = events.iter().map(|event| event.topic.as_str()).collect();
    let find = sqlx::query(SUBSCRIBERS).bind(token.to_vec()).bind(topics);
    let mut targets: HashMap<String, Vec<String>> = HashMap::new();
    for row in find.fetch_all(&mut *sql).await.map_err(refused)? {
        targets.entry(row.get(0)).or_default().push(row.get(1));
    }
    let mut messages = Messages::default();
    for event in &events {
        let Some(functions) = targets.get(&event.topic) else {
            return Ok(Published::UnknownTopic(event.topic.clone()));
        };
        for function in functions {
            messages.add(event, function);
        }
    }
    let publish = messages.bind(sqlx::query(PUBLISH).bind(token.to_vec()));
    publish.execute(sql).await.map(|_| Published::Done).map_err(refused)
}
