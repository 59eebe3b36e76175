//! Decisions of people about messages, and what is cleared away in time. Each operation is one transaction.

use async_trait::async_trait;

use super::connection::Connection;
use super::{Error, Sqlite, classify, group, json};
use crate::clock::{Timestamp, micros};
use crate::message::State;
use crate::store::{Decided, Retention, Steering};

const STANDING: &str = include_str!("standing.sql");
const DECIDE: &str = include_str!("decide.sql");
const REDRIVE: &str = include_str!("redrive.sql");
const REDRIVE_FIND: &str = include_str!("redrive_find.sql");
const REDRIVE_THESE: &str = include_str!("redrive_these.sql");
const LEAVE_HISTORY: &str = include_str!("leave_history.sql");
const RESOLVE_DOUBT: &str = include_str!("resolve_doubt.sql");
const ATTEMPT_CANCELLED: &str = include_str!("attempt_cancelled.sql");
const CANCEL: &str = include_str!("cancel.sql");
const LEAVE_QUEUE: &str = include_str!("leave_queue.sql");
const SWEEP_FIND: &str = include_str!("sweep_find.sql");
const SWEEP_BURY: &str = include_str!("sweep_bury.sql");
const SWEEP_FUNCTIONS: &str = include_str!("sweep_functions.sql");
const FORGET_FIND: &str = include_str!("forget_find.sql");
const FORGET_HISTORY: &str = include_str!("forget_history.sql");
const FORGET_ACTIVE_KEYS: &str = include_str!("forget_active_keys.sql");
const FORGET_OUTLIVED: &str = include_str!("forget_outlived.sql");
const FORGET_KEYS: &str = include_str!("forget_keys.sql");
/// What goes with a message.
const FORGET_WITH: [&str; 2] = [include_str!("forget_attempts.sql"), include_str!("forget_decisions.sql")];
const FORGET_MESSAGES: &str = include_str!("forget_messages.sql");

#[async_trait]
impl Steering for Sqlite {
    async fn redrive(&self, id: &str) -> Result<Decided, Error> {
        let id = id.to_owned();
        let decided = self.transaction(move |of| redrive(of, &id)).await?;
        self.work.notify_one();
        Ok(decided)
    }

    async fn redrivable(
        &self,
        function: &str,
        state: State,
        after: i64,
        limit: u32,
    ) -> Result<Vec<(i64, String)>, Error> {
        let find = sqlx::query_as(REDRIVE_FIND).bind(function).bind(state.as_str()).bind(after).bind(limit);
        find.fetch_all(&self.readers).await.map_err(classify)
    }

    async fn redrive_some(&self, function: &str, state: State, these: Vec<i64>) -> Result<Vec<i64>, Error> {
        let function = function.to_owned();
        let redriven = self.transaction(move |of| redrive_some(of, &function, state, &these)).await?;
        self.work.notify_one();
        Ok(redriven)
    }

    async fn resolve_doubt(&self, id: &str, end: State) -> Result<Decided, Error> {
        let id = id.to_owned();
        self.transaction(move |of| resolve_doubt(of, &id, end)).await
    }

    async fn cancel(&self, id: &str) -> Result<Decided, Error> {
        let id = id.to_owned();
        self.transaction(move |of| cancel(of, &id)).await
    }

    async fn sweep(&self, limit: u32) -> Result<u64, Error> {
        self.transaction(move |of| sweep(of, limit)).await
    }

    async fn forget(&self, keep: Retention, limit: u32) -> Result<u64, Error> {
        let now = self.clock.now();
        let mut forgotten = 0;
        for (state, span) in
            [(State::Completed, keep.completed), (State::Dead, keep.dead), (State::Cancelled, keep.cancelled)]
        {
            // Looked for beside the writer, which others wait for.
            let before = Timestamp(now.0.saturating_sub(micros(span)));
            let find = sqlx::query_scalar(FORGET_FIND).bind(state.as_str()).bind(before.0).bind(now.0).bind(limit);
            let found: Vec<i64> = find.fetch_all(&self.readers).await.map_err(classify)?;
            if !found.is_empty() {
                let gone = self.transaction(move |of| forget(of, &found, state, before)).await?;
                forgotten += gone.len() as u64;
                // After the commit, since the ledger has one of its own: a host that dies in between leaves rows that
                // nobody asks for.
                self.ledger.forget(&gone).await?;
            }
        }
        let keys = self.transaction(move |of| forget_keys(of, now, limit)).await?;
        Ok(forgotten + keys)
    }
}

/// Where a message stands.
struct Standing {
    seq: i64,
    state: State,
    function: String,
    group: Option<String>,
    deployed: bool,
}

fn standing(connection: &Connection, id: &str) -> Result<Option<Standing>, Error> {
    let found = connection.optional(STANDING, [id], |row| {
        let state: String = row.get(1)?;
        let standing = |state| {
            Ok(Standing { seq: row.get(0)?, state, function: row.get(2)?, group: row.get(3)?, deployed: row.get(4)? })
        };
        State::parse(&state).map(standing).transpose()
    })?;
    match found {
        None => Ok(None),
        Some(None) => Err(Error::Broken("a message in no known state".into())),
        Some(standing) => Ok(standing),
    }
}

fn decide(connection: &Connection, seq: i64, decision: &str, detail: String) -> Result<(), Error> {
    connection.execute(DECIDE, (seq, connection.clock.now().0, decision, detail)).map(drop)
}

fn redrive(connection: &Connection, id: &str) -> Result<Decided, Error> {
    let Some(at) = standing(connection, id)? else { return Ok(Decided::NoMessage) };
    if !at.state.can_be_redriven() {
        return Ok(Decided::Refused(at.state));
    }
    if !at.deployed {
        return Ok(Decided::NoFunction);
    }
    back_to_queue(connection, &at.function, at.seq, at.group.as_deref(), at.state)?;
    Ok(Decided::Done)
}

fn redrive_some(connection: &Connection, function: &str, state: State, these: &[i64]) -> Result<Vec<i64>, Error> {
    let these = (function, state.as_str(), json(these));
    let found: Vec<(i64, Option<String>)> =
        connection.all(REDRIVE_THESE, these, |row| Ok((row.get(0)?, row.get(1)?)))?;
    for (seq, group) in &found {
        back_to_queue(connection, function, *seq, group.as_deref(), state)?;
    }
    Ok(found.into_iter().map(|(seq, _)| seq).collect())
}

fn back_to_queue(
    connection: &Connection,
    function: &str,
    seq: i64,
    group: Option<&str>,
    was: State,
) -> Result<(), Error> {
    connection.execute(REDRIVE, (seq, connection.clock.now().0))?;
    connection.execute(LEAVE_HISTORY, [seq])?;
    if let Some(group) = group {
        group::order(connection, function, group, None)?;
    }
    decide(connection, seq, "redriven", format!("was {}", was.as_str()))
}

fn resolve_doubt(connection: &Connection, id: &str, end: State) -> Result<Decided, Error> {
    let Some(at) = standing(connection, id)? else { return Ok(Decided::NoMessage) };
    if at.state != State::InDoubt {
        return Ok(Decided::Refused(at.state));
    }
    connection.execute(RESOLVE_DOUBT, (at.seq, end.as_str(), connection.clock.now().0))?;
    decide(connection, at.seq, "resolved", format!("was in-doubt, is {}", end.as_str()))?;
    Ok(Decided::Done)
}

fn cancel(connection: &Connection, id: &str) -> Result<Decided, Error> {
    let Some(at) = standing(connection, id)? else { return Ok(Decided::NoMessage) };
    if at.state.is_final() {
        return Ok(Decided::Refused(at.state));
    }
    let now = connection.clock.now();
    for statement in [ATTEMPT_CANCELLED, CANCEL] {
        connection.execute(statement, (at.seq, now.0))?;
    }
    connection.execute(LEAVE_QUEUE, [at.seq])?;
    if let Some(group) = &at.group {
        group::order(connection, &at.function, group, None)?;
    }
    decide(connection, at.seq, "cancelled", format!("was {}", at.state.as_str()))?;
    Ok(Decided::Done)
}

fn sweep(connection: &Connection, limit: u32) -> Result<u64, Error> {
    let now = connection.clock.now();
    let found: Vec<i64> = connection.all(SWEEP_FIND, [limit], |row| row.get(0))?;
    for seq in &found {
        connection.execute(SWEEP_BURY, (seq, now.0))?;
        connection.execute(LEAVE_QUEUE, [seq])?;
    }
    connection.execute(SWEEP_FUNCTIONS, ())?;
    Ok(found.len() as u64)
}

/// Returns the ids of what is forgotten.
fn forget(connection: &Connection, found: &[i64], state: State, before: Timestamp) -> Result<Vec<String>, Error> {
    let history = (json(found), state.as_str(), before.0);
    let gone: Vec<i64> = connection.all(FORGET_HISTORY, history, |row| row.get(0))?;
    let these = json(&gone);
    connection.execute(FORGET_ACTIVE_KEYS, [&these])?;
    connection.execute(FORGET_OUTLIVED, (&these, state.as_str()))?;
    for statement in FORGET_WITH {
        connection.execute(statement, [&these])?;
    }
    connection.all(FORGET_MESSAGES, [&these], |row| row.get(0))
}

fn forget_keys(connection: &Connection, now: Timestamp, limit: u32) -> Result<u64, Error> {
    Ok(connection.execute(FORGET_KEYS, (now.0, limit))? as u64)
}
