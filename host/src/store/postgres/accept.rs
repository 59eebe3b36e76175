//! Acceptance on Postgres: the key first, so that two at once wait for each other, then the backlog and the messages.

use sqlx::Row;
use sqlx::postgres::PgConnection;

use super::group::Groups;
use super::{Error, classify};
use crate::clock::{Timestamp, micros};
use crate::crash::{self, Point};
use crate::message::{Event, State, message_id};
use crate::store::{Enqueued, Key, Remember, Target};

const NOW: &str = include_str!("now.sql");
const TARGET: &str = include_str!("target.sql");
const SUBSCRIBERS: &str = include_str!("subscribers.sql");
const KEY_REMEMBER: &str = include_str!("key_remember.sql");
const KEY_FIND: &str = include_str!("key_find.sql");
const KEY_RETAKE: &str = include_str!("key_retake.sql");
const BACKLOG_FULL: &str = include_str!("backlog_full.sql");
const ENQUEUE: &str = include_str!("enqueue.sql");

/// How often a key may be forgotten or taken over under our hands before somebody is told to come again.
const ROUNDS: u32 = 10;

/// The store's clock.
pub(super) async fn now(connection: &mut PgConnection) -> Result<Timestamp, Error> {
    sqlx::query_scalar(NOW).fetch_one(connection).await.map(Timestamp).map_err(classify)
}

/// To be kept only if it is [`Enqueued::Accepted`]: a full backlog leaves no key behind.
pub(super) async fn enqueue(
    connection: &mut PgConnection,
    event: &Event,
    target: &Target,
    key: Option<Key>,
) -> Result<Enqueued, Error> {
    match target {
        Target::Function(name) => to_function(connection, event, name, key).await,
        Target::Subscribers => {
            let find = sqlx::query_scalar(SUBSCRIBERS).bind(&event.topic);
            let functions: Vec<String> = find.fetch_all(&mut *connection).await.map_err(classify)?;
            if functions.is_empty() { Ok(Enqueued::NoTarget) } else { insert(connection, event, &functions).await }
        }
    }
}

async fn to_function(
    connection: &mut PgConnection,
    event: &Event,
    name: &str,
    key: Option<Key>,
) -> Result<Enqueued, Error> {
    let target = sqlx::query_scalar(TARGET).bind(name).fetch_optional(&mut *connection).await.map_err(classify)?;
    let Some(backlog): Option<Option<i64>> = target else { return Ok(Enqueued::NoTarget) };
    if let Some(key) = key
        && let Some(known) = take_key(connection, name, &key, &message_id(&event.id, name)).await?
    {
        return Ok(known);
    }
    if let Some(most) = backlog {
        let full = sqlx::query_scalar(BACKLOG_FULL).bind(name).bind(most);
        if full.fetch_one(&mut *connection).await.map_err(classify)? {
            return Ok(Enqueued::BacklogFull);
        }
    }
    let accepted = insert(connection, event, &[name.to_owned()]).await?;
    crash::point(Point::AcceptInserted);
    Ok(accepted)
}

/// Makes the key stand for this message, or says what it already stands for.
async fn take_key(
    connection: &mut PgConnection,
    name: &str,
    key: &Key,
    message: &str,
) -> Result<Option<Enqueued>, Error> {
    let at = now(connection).await?;
    let expires = match key.remember {
        Remember::For(window) => Some(at.plus(window).0),
        Remember::WhileActive | Remember::Forever => None,
    };
    let statement = |sql| {
        sqlx::query(sql)
            .bind(name)
            .bind(&key.key)
            .bind(&key.fingerprint)
            .bind(message)
            .bind(expires)
            .bind(key.remember == Remember::WhileActive)
    };
    for _ in 0..ROUNDS {
        if statement(KEY_REMEMBER).fetch_optional(&mut *connection).await.map_err(classify)?.is_some() {
            return Ok(None);
        }
        let find = sqlx::query(KEY_FIND).bind(name).bind(&key.key);
        let Some(row) = find.fetch_optional(&mut *connection).await.map_err(classify)? else { continue };
        let known: String = row.get("message");
        if row.get("active") {
            if row.get::<Vec<u8>, _>("fingerprint") != key.fingerprint {
                return Ok(Some(Enqueued::KeyReused));
            }
            let ended_as = row.get::<Option<&str>, _>("ended_as").and_then(State::parse);
            return Ok(Some(Enqueued::Duplicate { id: known, ended_as }));
        }
        let retake = statement(KEY_RETAKE).bind(known).fetch_optional(&mut *connection);
        if retake.await.map_err(classify)?.is_some() {
            return Ok(None);
        }
    }
    Err(Error::Unavailable("an idempotency key changed hands all the time".into()))
}

async fn insert(connection: &mut PgConnection, event: &Event, functions: &[String]) -> Result<Enqueued, Error> {
    let mut groups = Groups::default();
    functions.iter().for_each(|function| groups.add(function, event.group.as_deref()));
    groups.lock(connection).await?;
    let mut messages = Messages::default();
    functions.iter().for_each(|function| messages.add(event, function));
    let ids = messages.ids.clone();
    messages.bind(sqlx::query(ENQUEUE)).execute(&mut *connection).await.map_err(classify)?;
    groups.order(connection).await?;
    Ok(Enqueued::Accepted(ids))
}

/// Messages as `semel.enqueue` takes them: one array per column.
#[derive(Default)]
pub(super) struct Messages {
    ids: Vec<String>,
    events: Vec<String>,
    functions: Vec<String>,
    topics: Vec<String>,
    groups: Vec<Option<String>>,
    content_types: Vec<Option<String>>,
    headers: Vec<String>,
    bodies: Vec<Vec<u8>>,
    priorities: Vec<i64>,
    delays: Vec<i64>,
}

impl Messages {
    pub(super) fn add(&mut self, event: &Event, function: &str) {
        self.ids.push(message_id(&event.id, function));
        self.events.push(event.id.clone());
        self.functions.push(function.to_owned());
        self.topics.push(event.topic.clone());
        self.groups.push(event.group.clone());
        self.content_types.push(event.content_type.clone());
        self.headers.push(serde_json::to_string(&event.headers).unwrap_or_else(|_| "[]".into()));
        self.bodies.push(event.body.clone());
        self.priorities.push(event.priority.into());
        self.delays.push(micros(event.delay));
    }

    pub(super) fn bind(self, query: Query<'_>) -> Query<'_> {
        query
            .bind(self.ids)
            .bind(self.events)
            .bind(self.functions)
            .bind(self.topics)
            .bind(self.groups)
            .bind(self.content_types)
            .bind(self.headers)
            .bind(self.bodies)
            .bind(self.priorities)
            .bind(self.delays)
    }
}

/// A statement with its parameters.
pub(super) type Query<'q> = sqlx::query::Query<'q, sqlx::Postgres, sqlx::postgres::PgArguments>;
