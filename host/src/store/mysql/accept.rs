//! Acceptance: whom the events are for, then their keys, so that two at once wait for each other, then the messages. A few
//! statements for any number of events.

use std::collections::{HashMap, HashSet};

use serde::Serialize;
use sqlx::mysql::MySqlConnection;
use sqlx::{AssertSqlSafe, Row};

use super::group::Groups;
use super::list::list;
use super::{Error, classify};
use crate::clock::{Timestamp, micros};
use crate::crash::{self, Point};
use crate::message::{Event, State, message_id};
use crate::store::decide::{Decided, Scoped, Standing, Targets, decide, wanted};
use crate::store::{Accept, Enqueued, Key, Remember, Target};

const NOW: &str = include_str!("now.sql");
const TARGET: &str = include_str!("target.sql");
const BACKLOG_ROOM: &str = include_str!("backlog_room.sql");
const SUBSCRIBERS: &str = include_str!("subscribers.sql");
const KEY_REMEMBER: &str = include_str!("key_remember.sql");
const KEY_FIND: &str = include_str!("key_find.sql");
const KEY_RETAKE: &str = include_str!("key_retake.sql");
const KEY_RETURN: &str = include_str!("key_return.sql");
const ENQUEUE: &str = include_str!("enqueue.sql");
const ENQUEUE_QUEUE: &str = include_str!("enqueue_queue.sql");

/// Messages that one statement inserts: so many, and bodies of so many bytes beyond which no further one is added.
const STEP: usize = 64;
const STEP_BYTES: usize = 1 << 20;

/// The store's clock.
pub(super) async fn now(connection: &mut MySqlConnection) -> Result<Timestamp, Error> {
    sqlx::query_scalar(NOW).fetch_one(connection).await.map(Timestamp).map_err(classify)
}

/// To be kept only if something was accepted: where all backlogs are full, keys are left behind that stand for nothing.
pub(super) async fn enqueue_all(connection: &mut MySqlConnection, events: &[Accept]) -> Result<Vec<Enqueued>, Error> {
    let targets = find_targets(connection, events).await?;
    let known = take_keys(connection, wanted(events, &targets)).await?;
    let Decided { answers, messages, unused } = decide(events, targets, known);
    if messages.is_empty() {
        return Ok(answers);
    }
    if !unused.is_empty() {
        let give_back = sqlx::query(KEY_RETURN).bind(list(unused.iter().map(Scope::of)));
        give_back.execute(&mut *connection).await.map_err(classify)?;
    }
    let mut groups = Groups::default();
    messages.iter().for_each(|(event, function)| groups.add(function, event.group.as_deref()));
    groups.lock(connection).await?;
    enqueue(connection, &messages).await?;
    groups.order(connection).await?;
    crash::point(Point::AcceptInserted);
    Ok(answers)
}

async fn find_targets(connection: &mut MySqlConnection, events: &[Accept]) -> Result<Targets, Error> {
    let (mut names, mut topics) = (HashSet::new(), HashSet::new());
    for Accept { event, target, .. } in events {
        match target {
            Target::Function(name) => names.insert(name.as_str()),
            Target::Subscribers | Target::Inbox(_) => topics.insert(event.topic.as_str()),
        };
    }
    let mut found: Vec<(String, String)> = Vec::new();
    if !topics.is_empty() {
        let find = sqlx::query_as(SUBSCRIBERS).bind(list(topics));
        found = find.fetch_all(&mut *connection).await.map_err(classify)?;
    }
    if events.iter().any(|accept| matches!(accept.target, Target::Inbox(_))) {
        names.extend(found.iter().map(|(_, function)| function.as_str()));
    }
    let room = if names.is_empty() { HashMap::new() } else { find_room(connection, list(names)).await? };
    let mut subscribers = HashMap::<_, Vec<_>>::new();
    found.into_iter().for_each(|(topic, function)| subscribers.entry(topic).or_default().push(function));
    Ok(Targets { room, subscribers })
}

/// How many more messages each of these functions may have.
async fn find_room(connection: &mut MySqlConnection, names: String) -> Result<HashMap<String, Option<i64>>, Error> {
    let find = sqlx::query_as(TARGET).bind(names).fetch_all(&mut *connection);
    let deployed: Vec<(String, Option<i64>)> = find.await.map_err(classify)?;
    let mut room = HashMap::with_capacity(deployed.len());
    for (name, backlog) in deployed {
        let left = match backlog {
            None => None,
            Some(most) => {
                let count = sqlx::query_scalar(BACKLOG_ROOM).bind(&name).bind(most).fetch_one(&mut *connection);
                let waiting: i64 = count.await.map_err(classify)?;
                Some(most - waiting)
            }
        };
        room.insert(name, left);
    }
    Ok(room)
}

/// Makes each key stand for the first event that has it, but for those that stand for something already: these are returned.
async fn take_keys(
    connection: &mut MySqlConnection,
    mut wanted: HashMap<Scoped, (&Key, &Event)>,
) -> Result<HashMap<Scoped, Standing>, Error> {
    let mut known = HashMap::new();
    if wanted.is_empty() {
        return Ok(known);
    }
    let taker: [u8; 16] = rand::random();
    let take = sqlx::query(KEY_REMEMBER).bind(&taker[..]).bind(list(wanted.iter().map(Taking::of)));
    take.execute(&mut *connection).await.map_err(classify)?;
    let find = sqlx::query(KEY_FIND).bind(&taker[..]).bind(list(wanted.keys().map(Scope::of)));
    for row in find.fetch_all(&mut *connection).await.map_err(classify)? {
        let scoped = (row.get("function"), row.get("key"));
        if row.get("taken") {
            wanted.remove(&scoped);
        } else if row.get("active") {
            wanted.remove(&scoped);
            let ended_as = row.get::<Option<&str>, _>("ended_as").and_then(State::parse);
            let standing = Standing { fingerprint: row.get("fingerprint"), message: row.get("message"), ended_as };
            known.insert(scoped, standing);
        }
    }
    if !wanted.is_empty() {
        let retake = sqlx::query(KEY_RETAKE).bind(list(wanted.iter().map(Taking::of)));
        if retake.execute(connection).await.map_err(classify)?.rows_affected() != wanted.len() as u64 {
            return Err(Error::Busy("an idempotency key changed hands".into()));
        }
    }
    Ok(known)
}

/// A key, as the statements want it.
#[derive(Serialize)]
pub(super) struct Scope<'a> {
    pub(super) f: &'a str,
    pub(super) k: &'a str,
}

impl<'a> Scope<'a> {
    fn of((function, key): &'a Scoped) -> Self {
        Self { f: function, k: key }
    }
}

/// A key and what it is to stand for.
#[derive(Serialize)]
struct Taking<'a> {
    #[serde(flatten)]
    scope: Scope<'a>,
    fingerprint: String,
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    span: Option<i64>,
    while_active: u8,
}

impl<'a> Taking<'a> {
    fn of((scoped, (key, event)): (&'a Scoped, &(&Key, &Event))) -> Self {
        /// Far beyond every window, and the sum of it and a time is a number.
        const LONGEST: i64 = i64::MAX / 2;
        Self {
            scope: Scope::of(scoped),
            fingerprint: hex::encode(&key.fingerprint),
            message: message_id(&event.id, &scoped.0),
            span: match key.remember {
                Remember::For(window) => Some(micros(window).min(LONGEST)),
                Remember::WhileActive | Remember::Forever => None,
            },
            while_active: u8::from(key.remember == Remember::WhileActive),
        }
    }
}

async fn enqueue(connection: &mut MySqlConnection, messages: &[(&Event, String)]) -> Result<(), Error> {
    let mut rest = messages;
    while !rest.is_empty() {
        let mut bytes = 0;
        let fits = |(event, _): &&(&Event, String)| {
            bytes += event.body.len();
            bytes <= STEP_BYTES
        };
        let (these, others) = rest.split_at(rest.iter().take(STEP).take_while(fits).count().max(1));
        insert(connection, these).await?;
        rest = others;
    }
    let ids = messages.iter().map(|(event, function)| message_id(&event.id, function));
    sqlx::query(ENQUEUE_QUEUE).bind(list(ids)).execute(connection).await.map(drop).map_err(classify)
}

async fn insert(connection: &mut MySqlConnection, messages: &[(&Event, String)]) -> Result<(), Error> {
    let mut insert = sqlx::query(AssertSqlSafe(enqueue_sql(messages.len())));
    for (event, function) in messages {
        insert = insert
            .bind(message_id(&event.id, function))
            .bind(&event.id)
            .bind(function)
            .bind(&event.topic)
            .bind(event.group.as_deref())
            .bind(event.content_type.as_deref())
            .bind(serde_json::to_string(&event.headers).unwrap_or_else(|_| "[]".into()))
            .bind(&event.body)
            .bind(i64::from(event.priority))
            .bind(micros(event.delay));
    }
    insert.execute(connection).await.map(drop).map_err(classify)
}

/// With its values said so many times.
fn enqueue_sql(messages: usize) -> String {
    let text = ENQUEUE.trim_end();
    let (_, values) = text.rsplit_once('\n').unwrap_or_default();
    let further = messages.saturating_sub(1);
    format!("{text}{}", format!(",\n{values}").repeat(further))
}

#[cfg(test)]
mod tests {
    use super::enqueue_sql;

    #[test]
    fn each_message_has_its_values() {
        let places = |sql: &str| sql.matches('?').count();
        assert_eq!(places(&enqueue_sql(3)), 3 * places(&enqueue_sql(1)));
        assert!(enqueue_sql(2).contains("),\n    ("), "{}", enqueue_sql(2));
    }
}
