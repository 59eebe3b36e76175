//! What people ask about, read beside the engine's own sessions.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use sqlx::mysql::MySqlRow;
use sqlx::{AssertSqlSafe, Executor, Row};

use super::{Error, Mysql, classify, number, unsigned};
use crate::clock::Timestamp;
use crate::message::{Answer, Contract, Message, State};
use crate::store::{AttemptRecord, Counts, DecisionRecord, Depth, Fact, MessageFilter, MessageRecord, Records};

const MESSAGE_FROM: &str = include_str!("message_from.sql");
const MESSAGE: &str = include_str!("message.sql");
const ORIGINAL: &str = include_str!("original.sql");
const MESSAGES: &str = include_str!("messages.sql");
const MESSAGES_ENDED: &str = include_str!("messages_ended.sql");
const DECISIONS: &str = include_str!("decisions.sql");
const ATTEMPTS: &str = include_str!("attempts.sql");
const COUNTS: &str = include_str!("counts.sql");
const DEPTHS: &str = include_str!("depths.sql");

#[async_trait]
impl Records for Mysql {
    async fn message(&self, id: &str) -> Result<Option<MessageRecord>, Error> {
        let row = sqlx::query(of_messages(MESSAGE)).bind(id).fetch_optional(&self.readers).await.map_err(classify)?;
        row.as_ref().map(record).transpose()
    }

    async fn original(&self, id: &str) -> Result<Option<Message>, Error> {
        let row = sqlx::query(ORIGINAL).bind(id).fetch_optional(&self.readers).await.map_err(classify)?;
        row.map(|row| {
            let headers = serde_json::from_str(row.get("headers"));
            Ok(Message {
                id: row.get("id"),
                event: row.get("event"),
                function: row.get("function"),
                topic: row.get("topic"),
                group: row.get("group_key"),
                content_type: row.get("content_type"),
                headers: headers.map_err(|e| Error::Broken(format!("headers of message {id}: {e}")))?,
                accepted_at: Timestamp(row.get("accepted_at")),
                body: row.get("body"),
            })
        })
        .transpose()
    }

    async fn messages(&self, filter: MessageFilter) -> Result<Vec<MessageRecord>, Error> {
        let few = matches!(filter.state, Some(State::Dead | State::InDoubt | State::Cancelled));
        let mut list = sqlx::query(of_messages(if few { MESSAGES_ENDED } else { MESSAGES }));
        let (function, state) = (filter.function, filter.state.map(State::as_str));
        if few {
            list = list.bind(state).bind(&function).bind(&function);
        } else {
            list = list.bind(&function).bind(&function).bind(state).bind(state);
        }
        list = list.bind(filter.before).bind(filter.before).bind(number(filter.limit));
        list.fetch_all(&self.readers).await.map_err(classify)?.iter().map(record).collect()
    }

    async fn attempts(&self, id: &str) -> Result<Vec<AttemptRecord>, Error> {
        let rows = sqlx::query(ATTEMPTS).bind(id).bind(id).fetch_all(&self.readers).await.map_err(classify)?;
        rows.iter().map(attempt).collect()
    }

    async fn decisions(&self, id: &str) -> Result<Vec<DecisionRecord>, Error> {
        let rows = sqlx::query(DECISIONS).bind(id).fetch_all(&self.readers).await.map_err(classify)?;
        let decision =
            |row: &MySqlRow| DecisionRecord { at: Timestamp(row.get(0)), decision: row.get(1), detail: row.get(2) };
        Ok(rows.iter().map(decision).collect())
    }

    async fn counts(&self) -> Result<Vec<Counts>, Error> {
        let mut counts: BTreeMap<String, Counts> = BTreeMap::new();
        for row in self.readers.fetch_all(COUNTS).await.map_err(classify)? {
            let function: String = row.get(0);
            let entry = counts.entry(function.clone()).or_insert_with(|| Counts { function, ..Counts::default() });
            let (messages, attempts) = (count(row.get(2)), count(row.get(3)));
            entry.attempts += attempts;
            match (row.get::<&str, _>(1), State::parse(row.get(1))) {
                ("lost-lease", _) => entry.refused_commits += messages,
                (_, Some(State::Available)) => entry.available += messages,
                (_, Some(State::Running)) => entry.running += messages,
                (_, Some(State::Completed)) => entry.completed += messages,
                (_, Some(State::Dead)) => entry.dead += messages,
                (_, Some(State::InDoubt)) => entry.in_doubt += messages,
                (_, Some(State::Cancelled)) => entry.cancelled += messages,
                (other, None) => return Err(Error::Broken(format!("a message is in the unknown state {other}"))),
            }
        }
        Ok(counts.into_values().collect())
    }

    async fn depths(&self) -> Result<Vec<Depth>, Error> {
        let rows = self.readers.fetch_all(DEPTHS).await.map_err(classify)?;
        let depth = |row: &MySqlRow| {
            let state = row.get::<&str, _>(1);
            Ok(Depth {
                function: row.get(0),
                state: State::parse(state).ok_or_else(|| Error::Broken(format!("the unknown state {state}")))?,
                messages: count(row.get(2)),
                oldest_due: row.get::<Option<i64>, _>(3).map(|micros| Duration::from_micros(count(micros))),
            })
        };
        rows.iter().map(depth).collect()
    }

    async fn check(&self) -> Result<(), Error> {
        self.check_write().await
    }

    async fn health(&self) -> Result<Vec<Fact>, Error> {
        self.facts().await
    }
}

/// Messages with where they stand, under a condition.
fn of_messages(condition: &str) -> AssertSqlSafe<String> {
    AssertSqlSafe(format!("{MESSAGE_FROM}{condition}"))
}

fn record(row: &MySqlRow) -> Result<MessageRecord, Error> {
    let state = State::parse(row.get("state")).ok_or_else(|| Error::Broken("a message in no known state".into()))?;
    let kind: Option<String> = row.get("error_kind");
    let text: Option<String> = row.get("error_message");
    let answered: Option<bool> = row.get("answered");
    let answer = answered.unwrap_or(false).then(|| Answer {
        content_type: row.get("answer_content_type"),
        headers: serde_json::from_str(row.get("answer_headers")).unwrap_or_default(),
        body: row.get("answer_body"),
    });
    Ok(MessageRecord {
        seq: row.get("seq"),
        id: row.get("id"),
        event: row.get("event"),
        topic: row.get("topic"),
        function: row.get("function"),
        group: row.get("group_key"),
        priority: i32::try_from(row.get::<i64, _>("priority")).unwrap_or(0),
        headers: serde_json::from_str(row.get("headers")).map_err(|e| Error::Broken(format!("headers: {e}")))?,
        state,
        attempt: unsigned(row.get("attempt")),
        attempts_before: unsigned(row.get("attempts_before")),
        version: row.get("version"),
        contract: row.get::<Option<&str>, _>("contract").and_then(Contract::parse),
        label: row.get("label"),
        created_at: Timestamp(row.get("accepted_at")),
        available_at: Timestamp(row.get("available_at")),
        completed_at: row.get::<Option<i64>, _>("ended_at").map(Timestamp),
        lease_until: row.get::<Option<i64>, _>("lease_until").map(Timestamp),
        last_error: kind.map(|kind| (kind, text.unwrap_or_default())),
        answer,
    })
}

fn attempt(row: &MySqlRow) -> Result<AttemptRecord, Error> {
    let logs = serde_json::from_str(row.get("logs")).map_err(|e| Error::Broken(format!("log lines: {e}")))?;
    Ok(AttemptRecord {
        attempt: unsigned(row.get("attempt")),
        fence: row.get("fence"),
        version: row.get("version"),
        host: row.get("host"),
        claimed_at: Timestamp(row.get("claimed_at")),
        started_at: row.get::<Option<i64>, _>("started_at").map(Timestamp),
        ended_at: row.get::<Option<i64>, _>("ended_at").map(Timestamp),
        outcome: row.get("outcome"),
        error: row.get("error"),
        fuel: row.get::<Option<i64>, _>("fuel").map(count),
        statements: unsigned(row.get("statements")),
        sql_micros: row.get("sql_micros"),
        published: unsigned(row.get("published")),
        logs,
        logs_dropped: unsigned(row.get("logs_dropped")),
    })
}

fn count(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}
