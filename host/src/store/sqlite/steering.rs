//! Decisions of people about messages, and what is cleared away in time. Each operation is one transaction.

use async_trait::async_trait;
use sqlx::Row;

use super::connection::Connection;
use super::{Error, Sqlite, classify, group};
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
        let decided = self.transaction(move |of| Box::pin(async move { redrive(of, &id).await })).await?;
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
        let redrive =
            self.transaction(move |of| Box::pin(async move { redrive_some(of, &function, state, &these).await }));
        let redriven = redrive.await?;
        self.work.notify_one();
        Ok(redriven)
    }

    async fn resolve_doubt(&self, id: &str, end: State) -> Result<Decided, Error> {
        let id = id.to_owned();
        self.transaction(move |of| Box::pin(async move { resolve_doubt(of, &id, end).await })).await
    }

    async fn cancel(&self, id: &str) -> Result<Decided, Error> {
        let id = id.to_owned();
        self.transaction(move |of| Box::pin(async move { cancel(of, &id).await })).await
    }

    async fn sweep(&self, limit: u32) -> Result<u64, Error> {
        self.transaction(move |of| Box::pin(async move { sweep(of, limit).await })).await
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
                let forget =
                    self.transaction(move |of| Box::pin(async move { forget(of, &found, state, before).await }));
                let gone = forget.await?;
                forgotten += gone.len() as u64;
                // After the commit, since the ledger has one of its own: a host that dies in between leaves rows that
                // nobody asks for.
                self.ledger.forget(&gone).await?;
            }
        }
        let keys = self.transaction(move |of| Box::pin(async move { forget_keys(of, now, limit).await })).await?;
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

async fn standing(connection: &mut Connection, id: &str) -> Result<Option<Standing>, Error> {
    let row = sqlx::query(STANDING).bind(id).fetch_optional(&mut connection.sql).await.map_err(classify)?;
    row.map(|row| {
        let state = State::parse(row.get(1)).ok_or_else(|| Error::Broken("a message in no known state".into()))?;
        Ok(Standing { seq: row.get(0), state, function: row.get(2), group: row.get(3), deployed: row.get(4) })
    })
    .transpose()
}

async fn decide(connection: &mut Connection, seq: i64, decision: &str, detail: String) -> Result<(), Error> {
    let now = connection.clock.now();
    let decide = sqlx::query(DECIDE).bind(seq).bind(now.0).bind(decision).bind(detail);
    decide.execute(&mut connection.sql).await.map_err(classify)?;
    Ok(())
}

async fn redrive(connection: &mut Connection, id: &str) -> Result<Decided, Error> {
    let Some(at) = standing(connection, id).await? else { return Ok(Decided::NoMessage) };
    if !at.state.can_be_redriven() {
        return Ok(Decided::Refused(at.state));
    }
    if !at.deployed {
        return Ok(Decided::NoFunction);
    }
    back_to_queue(connection, &at.function, at.seq, at.group.as_deref(), at.state).await?;
    Ok(Decided::Done)
}

async fn redrive_some(
    connection: &mut Connection,
    function: &str,
    state: State,
    these: &[i64],
) -> Result<Vec<i64>, Error> {
    let find = sqlx::query(REDRIVE_THESE).bind(function).bind(state.as_str()).bind(list(these));
    let found = find.fetch_all(&mut connection.sql).await.map_err(classify)?;
    for row in &found {
        back_to_queue(connection, function, row.get(0), row.get(1), state).await?;
    }
    Ok(found.iter().map(|row| row.get(0)).collect())
}

async fn back_to_queue(
    connection: &mut Connection,
    function: &str,
    seq: i64,
    group: Option<&str>,
    was: State,
) -> Result<(), Error> {
    let now = connection.clock.now();
    let redrive = sqlx::query(REDRIVE).bind(seq).bind(now.0);
    redrive.execute(&mut connection.sql).await.map_err(classify)?;
    sqlx::query(LEAVE_HISTORY).bind(seq).execute(&mut connection.sql).await.map_err(classify)?;
    if let Some(group) = group {
        group::order(connection, function, group, None).await?;
    }
    decide(connection, seq, "redriven", format!("was {}", was.as_str())).await
}

async fn resolve_doubt(connection: &mut Connection, id: &str, end: State) -> Result<Decided, Error> {
    let Some(at) = standing(connection, id).await? else { return Ok(Decided::NoMessage) };
    if at.state != State::InDoubt {
        return Ok(Decided::Refused(at.state));
    }
    let now = connection.clock.now();
    let resolve = sqlx::query(RESOLVE_DOUBT).bind(at.seq).bind(end.as_str()).bind(now.0);
    resolve.execute(&mut connection.sql).await.map_err(classify)?;
    decide(connection, at.seq, "resolved", format!("was in-doubt, is {}", end.as_str())).await?;
    Ok(Decided::Done)
}

async fn cancel(connection: &mut Connection, id: &str) -> Result<Decided, Error> {
    let Some(at) = standing(connection, id).await? else { return Ok(Decided::NoMessage) };
    if at.state.is_final() {
        return Ok(Decided::Refused(at.state));
    }
    let now = connection.clock.now();
    for statement in [ATTEMPT_CANCELLED, CANCEL] {
        let step = sqlx::query(statement).bind(at.seq).bind(now.0);
        step.execute(&mut connection.sql).await.map_err(classify)?;
    }
    sqlx::query(LEAVE_QUEUE).bind(at.seq).execute(&mut connection.sql).await.map_err(classify)?;
    if let Some(group) = &at.group {
        group::order(connection, &at.function, group, None).await?;
    }
    decide(connection, at.seq, "cancelled", format!("was {}", at.state.as_str())).await?;
    Ok(Decided::Done)
}

async fn sweep(connection: &mut Connection, limit: u32) -> Result<u64, Error> {
    let now = connection.clock.now();
    let find = sqlx::query_scalar(SWEEP_FIND).bind(limit);
    let found: Vec<i64> = find.fetch_all(&mut connection.sql).await.map_err(classify)?;
    for seq in &found {
        let bury = sqlx::query(SWEEP_BURY).bind(seq).bind(now.0);
        bury.execute(&mut connection.sql).await.map_err(classify)?;
        sqlx::query(LEAVE_QUEUE).bind(seq).execute(&mut connection.sql).await.map_err(classify)?;
    }
    sqlx::query(SWEEP_FUNCTIONS).execute(&mut connection.sql).await.map_err(classify)?;
    Ok(found.len() as u64)
}

/// Returns the ids of what is forgotten.
async fn forget(
    connection: &mut Connection,
    found: &[i64],
    state: State,
    before: Timestamp,
) -> Result<Vec<String>, Error> {
    let history = sqlx::query_scalar(FORGET_HISTORY).bind(list(found)).bind(state.as_str()).bind(before.0);
    let gone: Vec<i64> = history.fetch_all(&mut connection.sql).await.map_err(classify)?;
    let these = list(&gone);
    sqlx::query(FORGET_ACTIVE_KEYS).bind(&these).execute(&mut connection.sql).await.map_err(classify)?;
    let outlived = sqlx::query(FORGET_OUTLIVED).bind(&these).bind(state.as_str());
    outlived.execute(&mut connection.sql).await.map_err(classify)?;
    for statement in FORGET_WITH {
        sqlx::query(statement).bind(&these).execute(&mut connection.sql).await.map_err(classify)?;
    }
    sqlx::query_scalar(FORGET_MESSAGES).bind(&these).fetch_all(&mut connection.sql).await.map_err(classify)
}

async fn forget_keys(connection: &mut Connection, now: Timestamp, limit: u32) -> Result<u64, Error> {
    let forget = sqlx::query(FORGET_KEYS).bind(now.0).bind(limit);
    Ok(forget.execute(&mut connection.sql).await.map_err(classify)?.rows_affected())
}

/// As `json_each` reads it.
fn list(numbers: &[i64]) -> String {
    serde_json::to_string(numbers).unwrap_or_else(|_| "[]".into())
}
