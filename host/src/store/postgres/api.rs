//! What a guest's transaction asks of the engine's tables: `state` and `publish`, by way of the schema `semel_api`.

use std::collections::HashMap;

use tokio_postgres::types::Type;
use tokio_postgres::{Client, Error};

use super::accept::Messages;
use super::guest_sql::{Typed, refused};
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
pub(super) async fn state(client: &Client, token: [u8; 16], op: StateOp) -> Result<StateReply, SqlError> {
    run(client, token, op).await.map_err(refused)
}

async fn run(client: &Client, token: [u8; 16], op: StateOp) -> Result<StateReply, Error> {
    const KEY: Type = Type::TEXT;
    let token: Typed<'_> = (&&token[..], Type::BYTEA);
    Ok(match op {
        StateOp::Get { key } => {
            let row = client.query_typed_one(STATE_GET, &[token, (&key, KEY), (&false, Type::BOOL)]).await?;
            StateReply::Value(row.try_get(0)?)
        }
        StateOp::Set { key, value } => {
            client.execute_typed(STATE_SET, &[token, (&key, KEY), (&value, Type::BYTEA)]).await?;
            StateReply::Done
        }
        StateOp::Delete { key } => {
            let row = client.query_typed_one(STATE_DELETE, &[token, (&key, KEY)]).await?;
            StateReply::Deleted(row.try_get(0)?)
        }
        StateOp::Add { key, delta } => {
            let row = client.query_typed_one(STATE_ADD, &[token, (&key, KEY), (&delta, Type::INT8)]).await?;
            let sum: Option<i64> = row.try_get(0)?;
            sum.map_or(StateReply::NotACounter, StateReply::Sum)
        }
        StateOp::Scan { prefix, after, limit } => {
            let limits: [Typed<'_>; 2] = [(&i64::from(limit), Type::INT8), (&SCAN_BYTES, Type::INT8)];
            let [limit, bytes] = limits;
            let rows = client.query_typed(STATE_SCAN, &[token, (&prefix, KEY), (&after, KEY), limit, bytes]).await?;
            let entry = |row: &tokio_postgres::Row| Ok((row.try_get(0)?, row.try_get(1)?));
            StateReply::Entries(rows.iter().map(entry).collect::<Result<_, Error>>()?)
        }
    })
}

/// Puts events into the queue as part of the transaction; all or none.
pub(super) async fn publish(client: &Client, token: [u8; 16], events: Vec<Event>) -> Result<Published, SqlError> {
    let topics: Vec<&str> = events.iter().map(|event| event.topic.as_str()).collect();
    let token: Typed<'_> = (&&token[..], Type::BYTEA);
    let rows = client.query_typed(SUBSCRIBERS, &[token.clone(), (&topics, Type::TEXT_ARRAY)]).await.map_err(refused)?;
    let mut targets: HashMap<String, Vec<String>> = HashMap::new();
    for row in rows {
        let function = row.try_get(1).map_err(refused)?;
        targets.entry(row.try_get(0).map_err(refused)?).or_default().push(function);
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
    let parameters: Vec<Typed<'_>> = std::iter::once(token).chain(messages.typed()).collect();
    client.execute_typed(PUBLISH, &parameters).await.map(|_| Published::Done).map_err(refused)
}
