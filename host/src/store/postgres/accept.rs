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
    let targets = Targets::find(connection, list).await?;
    let known = take_keys(connection, list, &targets).await?;
    let Decided { answers, messages, groups, unused } = decide(list, targets, known);
    if messages.ids.is_empty() {
        return Ok(answers);
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

/// Whom events are for.
struct Targets {
    /// Functions that are deployed, and how many more messages each may have.
    room: HashMap<String, Option<i64>>,
    /// By topic.
    subscribers: HashMap<String, Vec<String>>,
}

impl Targets {
    async fn find(connection: &mut PgConnection, list: &[Accept]) -> Result<Self, Error> {
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
        Ok(Self { room, subscribers })
    }
}

/// A key in the scope of its function.
type Scoped = (String, String);

/// What a key stands for.
struct Standing {
    fingerprint: Vec<u8>,
    message: String,
    ended_as: Option<State>,
}

impl Standing {
    fn answer(&self, key: &Key) -> Enqueued {
        if self.fingerprint != key.fingerprint {
            return Enqueued::KeyReused;
        }
        Enqueued::Duplicate { id: self.message.clone(), ended_as: self.ended_as }
    }
}

/// Makes each key stand for the first event that has it, but for those that stand for something already: these are returned.
async fn take_keys(
    connection: &mut PgConnection,
    list: &[Accept],
    targets: &Targets,
) -> Result<HashMap<Scoped, Standing>, Error> {
    let mut wanted: HashMap<Scoped, (&Key, &Event)> = HashMap::new();
    for Accept { event, target, key } in list {
        let scope = match target {
            Target::Function(name) => targets.room.contains_key(name).then_some(name),
            Target::Inbox(source) => targets.subscribers.contains_key(&event.topic).then_some(source),
            Target::Subscribers => None,
        };
        if let (Some(scope), Some(key)) = (scope, key) {
            wanted.entry((scope.clone(), key.key.clone())).or_insert((key, event));
        }
    }
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

/// What is to become of each event.
#[derive(Default)]
struct Decided {
    answers: Vec<Enqueued>,
    messages: Messages,
    groups: Groups,
    /// Keys that were taken for messages that find no room.
    unused: Vec<Scoped>,
}

/// One after another: each counts for those after it, against the backlog and by its key.
fn decide(list: &[Accept], mut targets: Targets, mut known: HashMap<Scoped, Standing>) -> Decided {
    let mut decided = Decided::default();
    for Accept { event, target, key } in list {
        let answer = match target {
            Target::Subscribers => match targets.subscribers.get(&event.topic) {
                Some(functions) => {
                    // No backlog keeps them out, but they count.
                    for name in functions {
                        targets.room.entry(name.clone()).and_modify(take_one);
                    }
                    Enqueued::Accepted(functions.iter().map(|name| decided.insert(event, name)).collect())
                }
                None => Enqueued::NoTarget,
            },
            Target::Function(name) => match targets.room.get_mut(name) {
                Some(room) => decided.single(event, name, key.as_ref(), room, &mut known),
                None => Enqueued::NoTarget,
            },
            Target::Inbox(source) => match targets.subscribers.get(&event.topic) {
                Some(functions) => {
                    decided.received(event, source, key.as_ref(), functions, &mut targets.room, &mut known)
                }
                None => Enqueued::NoTarget,
            },
        };
        decided.answers.push(answer);
    }
    decided
}

fn take_one(room: &mut Option<i64>) {
    *room = room.map(|room| room - 1);
}

impl Decided {
    fn single(
        &mut self,
        event: &Event,
        name: &str,
        key: Option<&Key>,
        room: &mut Option<i64>,
        known: &mut HashMap<Scoped, Standing>,
    ) -> Enqueued {
        let key = key.map(|key| ((name.to_owned(), key.key.clone()), key));
        if let Some((scoped, key)) = &key
            && let Some(standing) = known.get(scoped)
        {
            return standing.answer(key);
        }
        if room.is_some_and(|room| room <= 0) {
            self.unused.extend(key.map(|(scoped, _)| scoped));
            return Enqueued::BacklogFull;
        }
        take_one(room);
        let message = self.insert(event, name);
        if let Some((scoped, key)) = key {
            let fingerprint = key.fingerprint.clone();
            known.insert(scoped, Standing { fingerprint, message: message.clone(), ended_as: None });
        }
        Enqueued::Accepted(vec![message])
    }

    fn received(
        &mut self,
        event: &Event,
        source: &str,
        key: Option<&Key>,
        functions: &[String],
        room: &mut HashMap<String, Option<i64>>,
        known: &mut HashMap<Scoped, Standing>,
    ) -> Enqueued {
        let key = key.map(|key| ((source.to_owned(), key.key.clone()), key));
        if let Some((scoped, key)) = &key
            && let Some(standing) = known.get(scoped)
        {
            return standing.answer(key);
        }
        if functions.iter().any(|name| room.get(name).is_some_and(|room| room.is_some_and(|room| room <= 0))) {
            self.unused.extend(key.map(|(scoped, _)| scoped));
            return Enqueued::BacklogFull;
        }
        for name in functions {
            room.entry(name.clone()).and_modify(take_one);
        }
        if let Some((scoped, key)) = key {
            let (fingerprint, message) = (key.fingerprint.clone(), message_id(&event.id, source));
            known.insert(scoped, Standing { fingerprint, message, ended_as: None });
        }
        Enqueued::Accepted(functions.iter().map(|name| self.insert(event, name)).collect())
    }

    /// Returns the message's id.
    fn insert(&mut self, event: &Event, function: &str) -> String {
        self.groups.add(function, event.group.as_deref());
        self.messages.add(event, function)
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
