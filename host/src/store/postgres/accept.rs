//! Acceptance on Postgres: whom the events are for, then their keys, so that two at once wait for each other, then the messages.
//! A few statements for any number of events.

use std::collections::{HashMap, HashSet};

use sqlx::Row;
use sqlx::postgres::PgConnection;
use tokio_postgres::types::Type;

use super::group::Groups;
use super::guest_sql::Typed;
use super::{Error, classify};
use crate::clock::{Timestamp, micros};
use crate::crash::{self, Point};
use crate::message::{Event, State, message_id};
use crate::store::decide::{Decided, Scoped, Standing, Targets, decide, wanted};
use crate::store::{Accept, Enqueued, Key, Remember, Target};

const NOW: &str = include_str!("now.sql");
const TARGET: &str = include_str!("target.sql");
const SUBSCRIBERS: &str = include_str!("subscribers.sql");
const KEY_REMEMBER: &str = include_str!("key_remember.sql");
const KEY_FIND: &str = include_str!("key_find.sql");
const KEY_RETAKE: &str = include_str!("key_retake.sql");
const KEY_RETURN: &str = include_str!("key_return.sql");
const ENQUEUE: &str = include_str!("enqueue.sql");

/// The store's clock.
pub(super) async fn now(connection: &mut PgConnection) -> Result<Timestamp, Error> {
    sqlx::query_scalar(NOW).fetch_one(connection).await.map(Timestamp).map_err(classify)
}

/// To be kept only if something was accepted: where all backlogs are full, keys are left behind that stand for nothing.
pub(super) async fn enqueue_all(connection: &mut PgConnection, list: &[Accept]) -> Result<Vec<Enqueued>, Error> {
    let targets = find_targets(connection, list).await?;
    let known = take_keys(connection, wanted(list, &targets)).await?;
    let Decided { answers, messages: decided, unused } = decide(list, targets, known);
    if decided.is_empty() {
        return Ok(answers);
    }
    let (mut messages, mut groups) = (Messages::default(), Groups::default());
    for (event, function) in decided {
        groups.add(&function, event.group.as_deref());
        messages.add(event, &function);
    }
    if !unused.is_empty() {
        let (functions, keys): (Vec<_>, Vec<_>) = unused.into_iter().unzip();
        let give_back = sqlx::query(KEY_RETURN).bind(functions).bind(keys);
        give_back.execute(&mut *connection).await.map_err(classify)?;
    }
    groups.lock(connection).await?;
    messages.bind(sqlx::query(ENQUEUE)).execute(&mut *connection).await.map_err(classify)?;
    groups.order(connection).await?;
    crash::point(Point::AcceptInserted);
    Ok(answers)
}

async fn find_targets(connection: &mut PgConnection, list: &[Accept]) -> Result<Targets, Error> {
    let (mut names, mut topics) = (HashSet::new(), HashSet::new());
    for Accept { event, target, .. } in list {
        match target {
            Target::Function(name) => names.insert(name.as_str()),
            Target::Subscribers | Target::Inbox(_) => topics.insert(event.topic.as_str()),
        };
    }
    let (mut room, mut subscribers) = (HashMap::new(), HashMap::<_, Vec<_>>::new());
    let mut found: Vec<(String, String)> = Vec::new();
    if !topics.is_empty() {
        let find = sqlx::query_as(SUBSCRIBERS).bind(Vec::from_iter(topics));
        found = find.fetch_all(&mut *connection).await.map_err(classify)?;
    }
    if list.iter().any(|accept| matches!(accept.target, Target::Inbox(_))) {
        names.extend(found.iter().map(|(_, function)| function.as_str()));
    }
    if !names.is_empty() {
        let find = sqlx::query_as(TARGET).bind(Vec::from_iter(names));
        room.extend(find.fetch_all(connection).await.map_err(classify)?);
    }
    found.into_iter().for_each(|(topic, function)| subscribers.entry(topic).or_default().push(function));
    Ok(Targets { room, subscribers })
}

/// Makes each key stand for the first event that has it, but for those that stand for something already: these are returned.
async fn take_keys(
    connection: &mut PgConnection,
    mut wanted: HashMap<Scoped, (&Key, &Event)>,
) -> Result<HashMap<Scoped, Standing>, Error> {
    if wanted.is_empty() {
        return Ok(HashMap::new());
    }
    let take = Taking::of(&wanted).bind(sqlx::query(KEY_REMEMBER));
    for row in take.fetch_all(&mut *connection).await.map_err(classify)? {
        wanted.remove(&(row.get("function"), row.get("key")));
    }
    if wanted.is_empty() {
        return Ok(HashMap::new());
    }
    let (functions, keys): (Vec<_>, Vec<_>) = wanted.keys().cloned().unzip();
    let find = sqlx::query(KEY_FIND).bind(functions).bind(keys);
    let mut known = HashMap::new();
    for row in find.fetch_all(&mut *connection).await.map_err(classify)? {
        let scoped = (row.get("function"), row.get("key"));
        if row.get("active") {
            wanted.remove(&scoped);
            let ended_as = row.get::<Option<&str>, _>("ended_as").and_then(State::parse);
            known.insert(
                scoped,
                Standing { fingerprint: row.get("fingerprint"), message: row.get("message"), ended_as },
            );
        }
    }
    if !wanted.is_empty() {
        let retake = Taking::of(&wanted).bind(sqlx::query(KEY_RETAKE));
        if retake.execute(connection).await.map_err(classify)?.rows_affected() != wanted.len() as u64 {
            return Err(Error::Busy("an idempotency key changed hands".into()));
        }
    }
    Ok(known)
}

/// Keys as the statements that take them want them: one array per column.
#[derive(Default)]
struct Taking {
    functions: Vec<String>,
    keys: Vec<String>,
    fingerprints: Vec<Vec<u8>>,
    messages: Vec<String>,
    windows: Vec<Option<i64>>,
    while_active: Vec<bool>,
}

impl Taking {
    fn of(wanted: &HashMap<Scoped, (&Key, &Event)>) -> Self {
        /// Far beyond every window, and the sum of it and a time is a number.
        const LONGEST: i64 = i64::MAX / 2;
        let mut taking = Self::default();
        for ((function, name), (key, event)) in wanted {
            taking.functions.push(function.clone());
            taking.keys.push(name.clone());
            taking.fingerprints.push(key.fingerprint.clone());
            taking.messages.push(message_id(&event.id, function));
            taking.windows.push(match key.remember {
                Remember::For(window) => Some(micros(window).min(LONGEST)),
                Remember::WhileActive | Remember::Forever => None,
            });
            taking.while_active.push(key.remember == Remember::WhileActive);
        }
        taking
    }

    fn bind(self, query: Query<'_>) -> Query<'_> {
        query
            .bind(self.functions)
            .bind(self.keys)
            .bind(self.fingerprints)
            .bind(self.messages)
            .bind(self.windows)
            .bind(self.while_active)
    }
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
    /// Returns the message's id.
    pub(super) fn add(&mut self, event: &Event, function: &str) -> String {
        let id = message_id(&event.id, function);
        self.ids.push(id.clone());
        self.events.push(event.id.clone());
        self.functions.push(function.to_owned());
        self.topics.push(event.topic.clone());
        self.groups.push(event.group.clone());
        self.content_types.push(event.content_type.clone());
        self.headers.push(serde_json::to_string(&event.headers).unwrap_or_else(|_| "[]".into()));
        self.bodies.push(event.body.clone());
        self.priorities.push(event.priority.into());
        self.delays.push(micros(event.delay));
        id
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

    /// The same for a statement in a guest's session.
    pub(super) fn typed(&self) -> [Typed<'_>; 10] {
        [
            (&self.ids, Type::TEXT_ARRAY),
            (&self.events, Type::TEXT_ARRAY),
            (&self.functions, Type::TEXT_ARRAY),
            (&self.topics, Type::TEXT_ARRAY),
            (&self.groups, Type::TEXT_ARRAY),
            (&self.content_types, Type::TEXT_ARRAY),
            (&self.headers, Type::TEXT_ARRAY),
            (&self.bodies, Type::BYTEA_ARRAY),
            (&self.priorities, Type::INT8_ARRAY),
            (&self.delays, Type::INT8_ARRAY),
        ]
    }
}

/// A statement with its parameters.
pub(super) type Query<'q> = sqlx::query::Query<'q, sqlx::Postgres, sqlx::postgres::PgArguments>;
