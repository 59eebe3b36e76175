//! Acceptance on SQLite: the key, the backlog, the message and its place in the queue, in one transaction.

use super::Error;
use super::connection::Connection;
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

pub(super) fn enqueue(
    connection: &Connection,
    event: &Event,
    target: &Target,
    key: Option<Key>,
) -> Result<Enqueued, Error> {
    match target {
        Target::Function(name) => to_function(connection, event, name, key),
        Target::Subscribers => match subscribers(connection, &event.topic)? {
            functions if functions.is_empty() => Ok(Enqueued::NoTarget),
            functions => Ok(Enqueued::Accepted(insert_event(connection, event, &functions)?)),
        },
        Target::Inbox(source) => to_inbox(connection, event, source, key),
    }
}

fn to_inbox(connection: &Connection, event: &Event, source: &str, key: Option<Key>) -> Result<Enqueued, Error> {
    if let Some(known) = find_key(connection, source, key.as_ref())? {
        return Ok(known);
    }
    let functions = subscribers(connection, &event.topic)?;
    if functions.is_empty() {
        return Ok(Enqueued::NoTarget);
    }
    for function in &functions {
        if is_full(connection, function, connection.one(TARGET, [function], |row| row.get(0))?)? {
            return Ok(Enqueued::BacklogFull);
        }
    }
    if let Some(key) = key {
        remember_key(connection, source, key, &message_id(&event.id, source))?;
    }
    Ok(Enqueued::Accepted(insert_event(connection, event, &functions)?))
}

fn is_full(connection: &Connection, function: &str, backlog: Option<u32>) -> Result<bool, Error> {
    let Some(most) = backlog else { return Ok(false) };
    connection.one(BACKLOG_FULL, (function, most), |row| row.get(0))
}

fn to_function(connection: &Connection, event: &Event, name: &str, key: Option<Key>) -> Result<Enqueued, Error> {
    let target = connection.optional(TARGET, [name], |row| row.get::<_, Option<u32>>(0))?;
    let Some(backlog) = target else { return Ok(Enqueued::NoTarget) };
    if let Some(known) = find_key(connection, name, key.as_ref())? {
        return Ok(known);
    }
    if is_full(connection, name, backlog)? {
        return Ok(Enqueued::BacklogFull);
    }
    if let Some(key) = key {
        remember_key(connection, name, key, &message_id(&event.id, name))?;
    }
    let ids = insert_event(connection, event, &[name.to_owned()])?;
    crash::point(Point::AcceptInserted);
    Ok(Enqueued::Accepted(ids))
}

/// What this key already stands for.
fn find_key(connection: &Connection, name: &str, key: Option<&Key>) -> Result<Option<Enqueued>, Error> {
    let Some(key) = key else { return Ok(None) };
    let now = connection.clock.now();
    connection.optional(KEY_FIND, (name, &key.key, now.0), |row| {
        if row.get_ref(0)?.as_blob()? != key.fingerprint {
            return Ok(Enqueued::KeyReused);
        }
        let ended_as: Option<String> = row.get(2)?;
        Ok(Enqueued::Duplicate { id: row.get(1)?, ended_as: ended_as.and_then(|state| State::parse(&state)) })
    })
}

fn remember_key(connection: &Connection, name: &str, key: Key, message: &str) -> Result<(), Error> {
    let now = connection.clock.now();
    let expires = match key.remember {
        Remember::For(window) => Some(now.plus(window).0),
        Remember::WhileActive | Remember::Forever => None,
    };
    let while_active = key.remember == Remember::WhileActive;
    connection.execute(KEY_REMEMBER, (name, key.key, key.fingerprint, message, expires, while_active)).map(drop)
}

pub(super) fn subscribers(connection: &Connection, topic: &str) -> Result<Vec<String>, Error> {
    connection.all(SUBSCRIBERS, [topic], |row| row.get(0))
}

/// One message per function, in the transaction that is open. Returns their ids.
pub(super) fn insert_event(connection: &Connection, event: &Event, functions: &[String]) -> Result<Vec<String>, Error> {
    let now = connection.clock.now();
    let due = now.plus(event.delay);
    let headers = super::json(&event.headers);
    let mut ids = Vec::with_capacity(functions.len());
    for function in functions {
        let id = message_id(&event.id, function);
        let message = (
            &id,
            &event.id,
            function,
            &event.topic,
            &event.group,
            &event.content_type,
            &headers,
            &event.body,
            event.priority,
            now.0,
            due.0,
        );
        let seq: i64 = connection.one(ENQUEUE_MESSAGE, message, |row| row.get(0))?;
        connection.execute(ENQUEUE_QUEUE, (seq, function, &event.group, event.priority, due.0, due <= now))?;
        ids.push(id);
    }
    Ok(ids)
}
