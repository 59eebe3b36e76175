//! Acceptance on SQLite: the key, the backlog, the message and its place in the queue, in one transaction.

use sqlx::Row;

use super::connection::Connection;
use super::{Error, classify};
use crate::crash::{self, Point};
use crate::message::{Event, State, message_id};
use crate::store::{Enqueued, Key, Remember, Target};

const TARGET: &str = include_str!("target.sql");
const SUBSCRIBERS: &str = include_str!("subscribers.sql");
const KEY_FIND: &str = include_str!("key_find.sql");
const KEY_REMEMBER: &str = include_str!("key_remember.sql");
const BACKLOG_FULL: &str = include_str!("backlog_full.sql");
const ENQUEUE_MESSAGE: &str = include_str!("enqueue_message.sql");
const ENQUEUE_QUEUE: &str = include_str!("enqueue_queue.sql");

pub(super) async fn enqueue(
    connection: &mut Connection,
    event: &Event,
    target: &Target,
    key: Option<Key>,
) -> Result<Enqueued, Error> {
    match target {
        Target::Function(name) => to_function(connection, event, name, key).await,
        Target::Subscribers => match subscribers(connection, &event.topic).await? {
            functions if functions.is_empty() => Ok(Enqueued::NoTarget),
            functions => Ok(Enqueued::Accepted(insert_event(connection, event, &functions).await?)),
        },
    }
}

async fn to_function(
    connection: &mut Connection,
    event: &Event,
    name: &str,
    key: Option<Key>,
) -> Result<Enqueued, Error> {
    let target = sqlx::query_scalar(TARGET).bind(name).fetch_optional(&mut connection.sql).await.map_err(classify)?;
    let Some(backlog): Option<Option<u32>> = target else { return Ok(Enqueued::NoTarget) };
    if let Some(known) = find_key(connection, name, key.as_ref()).await? {
        return Ok(known);
    }
    if let Some(most) = backlog {
        let full = sqlx::query_scalar(BACKLOG_FULL).bind(name).bind(most);
        if full.fetch_one(&mut connection.sql).await.map_err(classify)? {
            return Ok(Enqueued::BacklogFull);
        }
    }
    if let Some(key) = key {
        remember_key(connection, name, key, &message_id(&event.id, name)).await?;
    }
    let ids = insert_event(connection, event, &[name.to_owned()]).await?;
    crash::point(Point::AcceptInserted);
    Ok(Enqueued::Accepted(ids))
}

/// What this key already stands for.
async fn find_key(connection: &mut Connection, name: &str, key: Option<&Key>) -> Result<Option<Enqueued>, Error> {
    let Some(key) = key else { return Ok(None) };
    let now = connection.clock.now();
    let find = sqlx::query(KEY_FIND).bind(name).bind(&key.key).bind(now.0);
    let found = find.fetch_optional(&mut connection.sql).await.map_err(classify)?;
    Ok(found.map(|row| {
        if row.get::<Vec<u8>, _>(0) == key.fingerprint {
            let ended_as = row.get::<Option<&str>, _>(2).and_then(State::parse);
            Enqueued::Duplicate { id: row.get(1), ended_as }
        } else {
            Enqueued::KeyReused
        }
    }))
}

async fn remember_key(connection: &mut Connection, name: &str, key: Key, message: &str) -> Result<(), Error> {
    let now = connection.clock.now();
    let expires = match key.remember {
        Remember::For(window) => Some(now.plus(window).0),
        Remember::WhileActive | Remember::Forever => None,
    };
    let remember = sqlx::query(KEY_REMEMBER)
        .bind(name)
        .bind(key.key)
        .bind(key.fingerprint)
        .bind(message)
        .bind(expires)
        .bind(key.remember == Remember::WhileActive);
    remember.execute(&mut connection.sql).await.map_err(classify)?;
    Ok(())
}

pub(super) async fn subscribers(connection: &mut Connection, topic: &str) -> Result<Vec<String>, Error> {
    sqlx::query_scalar(SUBSCRIBERS).bind(topic).fetch_all(&mut connection.sql).await.map_err(classify)
}

/// One message per function, in the transaction that is open. Returns their ids.
pub(super) async fn insert_event(
    connection: &mut Connection,
    event: &Event,
    functions: &[String],
) -> Result<Vec<String>, Error> {
    let now = connection.clock.now();
    let due = now.plus(event.delay);
    let headers = serde_json::to_string(&event.headers).unwrap_or_else(|_| "[]".into());
    let mut ids = Vec::with_capacity(functions.len());
    for function in functions {
        let id = message_id(&event.id, function);
        let message = sqlx::query(ENQUEUE_MESSAGE)
            .bind(&id)
            .bind(&event.id)
            .bind(function)
            .bind(&event.topic)
            .bind(&event.group)
            .bind(&event.content_type)
            .bind(&headers)
            .bind(&event.body)
            .bind(event.priority)
            .bind(now.0)
            .bind(due.0);
        let seq: i64 = message.fetch_one(&mut connection.sql).await.map_err(classify)?.get(0);
        let queue = sqlx::query(ENQUEUE_QUEUE)
            .bind(seq)
            .bind(function)
            .bind(&event.group)
            .bind(event.priority)
            .bind(due.0)
            .bind(due <= now);
        queue.execute(&mut connection.sql).await.map_err(classify)?;
        ids.push(id);
    }
    Ok(ids)
}
