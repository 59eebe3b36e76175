//! Decisions of people about messages, and what is cleared away in time. Each operation is one transaction.

use async_trait::async_trait;
use sqlx::Row;
use sqlx::mysql::MySqlConnection;

use super::accept::Scope;
use super::group::Groups;
use super::list::list;
use super::{Error, Mysql, classify, ended, number};
use crate::clock::micros;
use crate::message::State;
use crate::store::{Decided, Retention, Steering};

const STANDING: &str = include_str!("standing.sql");
const DECIDE: &str = include_str!("decide.sql");
const REDRIVE_LOCK: &str = include_str!("redrive_lock.sql");
const REDRIVE: &str = include_str!("redrive.sql");
const LEAVE_HISTORY: &str = include_str!("leave_history.sql");
const REDRIVE_FIND: &str = include_str!("redrive_find.sql");
const REDRIVE_THESE: &str = include_str!("redrive_these.sql");
const RESOLVE_DOUBT: &str = include_str!("resolve_doubt.sql");
const CANCEL_LOCK: &str = include_str!("cancel_lock.sql");
const CANCEL_ATTEMPT: &str = include_str!("cancel_attempt.sql");
const SWEEP_FIND: &str = include_str!("sweep_find.sql");
const SWEEP_LOCK: &str = include_str!("sweep_lock.sql");
/// For people, of what a removed function leaves.
const REMOVED: &str = "its function was removed; deploy it again, then redrive the message";
const FORGET_FIND: &str = include_str!("forget_find.sql");
const FORGET_LOCK: &str = include_str!("forget_lock.sql");
const FORGET_OUTLIVED: &str = include_str!("forget_outlived.sql");
const FORGET_KEYS_FIND: &str = include_str!("forget_keys_find.sql");
const FORGET_KEYS: &str = include_str!("forget_keys.sql");
const FORGET_ACTIVE_KEYS: &str = include_str!("forget_active_keys.sql");
/// What goes with a message, itself last.
const FORGET_MESSAGES: [&str; 4] = [
    include_str!("ledger_forget.sql"),
    include_str!("forget_attempts.sql"),
    include_str!("forget_decisions.sql"),
    include_str!("forget_messages.sql"),
];

#[async_trait]
impl Steering for Mysql {
    async fn redrive(&self, id: &str) -> Result<Decided, Error> {
        let id = id.to_owned();
        let decided = self.engine.transaction(move |of| Box::pin(async move { redrive(of, &id).await })).await?;
        self.wake.all();
        Ok(decided)
    }

    async fn redrivable(
        &self,
        function: &str,
        state: State,
        after: i64,
        limit: u32,
    ) -> Result<Vec<(i64, String)>, Error> {
        let function = function.to_owned();
        let find = self.engine.run(move |connection| {
            Box::pin(async move {
                let find = sqlx::query_as(REDRIVE_FIND).bind(function).bind(state.as_str());
                find.bind(after).bind(number(limit)).fetch_all(connection).await.map_err(classify)
            })
        });
        find.await
    }

    async fn redrive_some(&self, function: &str, state: State, these: Vec<i64>) -> Result<Vec<i64>, Error> {
        let function = function.to_owned();
        let redrive =
            self.engine.transaction(move |of| Box::pin(async move { redrive_some(of, &function, state, these).await }));
        let redriven = redrive.await?;
        self.wake.all();
        Ok(redriven)
    }

    async fn resolve_doubt(&self, id: &str, end: State) -> Result<Decided, Error> {
        let id = id.to_owned();
        self.engine.transaction(move |of| Box::pin(async move { resolve_doubt(of, &id, end).await })).await
    }

    async fn cancel(&self, id: &str) -> Result<Decided, Error> {
        let id = id.to_owned();
        self.engine.transaction(move |of| Box::pin(async move { cancel(of, &id).await })).await
    }

    async fn sweep(&self, limit: u32) -> Result<u64, Error> {
        self.engine.transaction(move |of| Box::pin(sweep(of, limit))).await
    }

    async fn forget(&self, keep: Retention, limit: u32) -> Result<u64, Error> {
        let mut forgotten = 0;
        for (state, span) in
            [(State::Completed, keep.completed), (State::Dead, keep.dead), (State::Cancelled, keep.cancelled)]
        {
            let found = self.engine.run(move |connection| {
                Box::pin(async move {
                    let find =
                        sqlx::query_scalar(FORGET_FIND).bind(state.as_str()).bind(micros(span)).bind(number(limit));
                    find.fetch_all(connection).await.map_err(classify)
                })
            });
            let found: Vec<i64> = found.await?;
            if !found.is_empty() {
                let forget = self.engine.transaction(move |of| Box::pin(forget(of, found, state)));
                forgotten += forget.await?;
            }
        }
        let keys = self.engine.transaction(move |of| Box::pin(forget_keys(of, limit)));
        Ok(forgotten + keys.await?)
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

async fn standing(connection: &mut MySqlConnection, id: &str) -> Result<Option<Standing>, Error> {
    let row = sqlx::query(STANDING).bind(id).fetch_optional(connection).await.map_err(classify)?;
    row.map(|row| {
        let state = row.get::<Option<&str>, _>(1).and_then(State::parse);
        let state = state.ok_or_else(|| Error::Broken("a message in no known state".into()))?;
        Ok(Standing { seq: row.get(0), state, function: row.get(2), group: row.get(3), deployed: row.get(4) })
    })
    .transpose()
}

async fn decide(connection: &mut MySqlConnection, seq: i64, decision: &str, detail: String) -> Result<(), Error> {
    let decide = sqlx::query(DECIDE).bind(seq).bind(decision).bind(detail);
    decide.execute(connection).await.map(drop).map_err(classify)
}

async fn redrive(connection: &mut MySqlConnection, id: &str) -> Result<Decided, Error> {
    let Some(at) = standing(connection, id).await? else { return Ok(Decided::NoMessage) };
    if !at.state.can_be_redriven() {
        return Ok(Decided::Refused(at.state));
    }
    if !at.deployed {
        return Ok(Decided::NoFunction);
    }
    let back = back_to_queue(connection, &Groups::one(&at.function, at.group.as_deref()), &[at.seq]).await?;
    if back.is_empty() { elsewhere(connection, id).await } else { Ok(Decided::Done) }
}

/// Somebody else was faster: where it stands now.
async fn elsewhere(connection: &mut MySqlConnection, id: &str) -> Result<Decided, Error> {
    Ok(match standing(connection, id).await? {
        None => Decided::NoMessage,
        Some(at) if !at.deployed => Decided::NoFunction,
        Some(at) => Decided::Refused(at.state),
    })
}

async fn redrive_some(
    connection: &mut MySqlConnection,
    function: &str,
    state: State,
    these: Vec<i64>,
) -> Result<Vec<i64>, Error> {
    let find = sqlx::query(REDRIVE_THESE).bind(list(these)).bind(function).bind(state.as_str());
    let found = find.fetch_all(&mut *connection).await.map_err(classify)?;
    let mut groups = Groups::default();
    found.iter().for_each(|row| groups.add(function, row.get(1)));
    let seqs: Vec<i64> = found.iter().map(|row| row.get(0)).collect();
    if seqs.is_empty() {
        return Ok(seqs);
    }
    back_to_queue(connection, &groups, &seqs).await
}

/// Returns what came back; not what somebody else was faster with.
async fn back_to_queue(connection: &mut MySqlConnection, groups: &Groups, seqs: &[i64]) -> Result<Vec<i64>, Error> {
    groups.lock(connection).await?;
    let lock = sqlx::query_as(REDRIVE_LOCK).bind(list(seqs)).fetch_all(&mut *connection);
    let locked: Vec<(i64, String)> = lock.await.map_err(classify)?;
    let back: Vec<i64> = locked.iter().map(|(seq, _)| *seq).collect();
    for statement in [REDRIVE, LEAVE_HISTORY] {
        sqlx::query(statement).bind(list(&back)).execute(&mut *connection).await.map_err(classify)?;
    }
    groups.order(connection).await?;
    for (seq, was) in locked {
        decide(connection, seq, "redriven", format!("was {was}")).await?;
    }
    Ok(back)
}

async fn resolve_doubt(connection: &mut MySqlConnection, id: &str, end: State) -> Result<Decided, Error> {
    let Some(at) = standing(connection, id).await? else { return Ok(Decided::NoMessage) };
    if at.state != State::InDoubt {
        return Ok(Decided::Refused(at.state));
    }
    let why = (end == State::Dead).then_some(("resolved", "resolved as dead by a person"));
    let (kind, message) = why.unzip();
    let resolve = sqlx::query(RESOLVE_DOUBT).bind(end.as_str()).bind(kind).bind(message).bind(at.seq);
    if resolve.execute(&mut *connection).await.map_err(classify)?.rows_affected() == 0 {
        return elsewhere(connection, id).await;
    }
    decide(connection, at.seq, "resolved", format!("was in-doubt, is {}", end.as_str())).await?;
    Ok(Decided::Done)
}

async fn cancel(connection: &mut MySqlConnection, id: &str) -> Result<Decided, Error> {
    let Some(at) = standing(connection, id).await? else { return Ok(Decided::NoMessage) };
    if at.state.is_final() {
        return Ok(Decided::Refused(at.state));
    }
    let groups = Groups::one(&at.function, at.group.as_deref());
    groups.lock(connection).await?;
    let cancel = sqlx::query_scalar(CANCEL_LOCK).bind(at.seq).fetch_optional(&mut *connection);
    let Some(was): Option<String> = cancel.await.map_err(classify)? else {
        return elsewhere(connection, id).await;
    };
    sqlx::query(CANCEL_ATTEMPT).bind(at.seq).execute(&mut *connection).await.map_err(classify)?;
    ended::end(connection, &[at.seq], State::Cancelled, "cancelled", "cancelled by a person").await?;
    groups.order(connection).await?;
    decide(connection, at.seq, "cancelled", format!("was {was}")).await?;
    Ok(Decided::Done)
}

async fn sweep(connection: &mut MySqlConnection, limit: u32) -> Result<u64, Error> {
    let find = sqlx::query(SWEEP_FIND).bind(number(limit));
    let found = find.fetch_all(&mut *connection).await.map_err(classify)?;
    if found.is_empty() {
        return Ok(0);
    }
    let mut groups = Groups::default();
    found.iter().for_each(|row| groups.add(row.get(1), row.get(2)));
    groups.lock(connection).await?;
    let seqs = list(found.iter().map(|row| row.get::<i64, _>(0)));
    let lock = sqlx::query_scalar(SWEEP_LOCK).bind(seqs).fetch_all(&mut *connection);
    let buried: Vec<i64> = lock.await.map_err(classify)?;
    ended::end(connection, &buried, State::Dead, "removed", REMOVED).await?;
    groups.order(connection).await?;
    Ok(buried.len() as u64)
}

async fn forget(connection: &mut MySqlConnection, found: Vec<i64>, state: State) -> Result<u64, Error> {
    let lock = sqlx::query_scalar(FORGET_LOCK).bind(list(found)).bind(state.as_str());
    let gone: Vec<i64> = lock.fetch_all(&mut *connection).await.map_err(classify)?;
    let (forgotten, gone) = (gone.len() as u64, list(gone));
    sqlx::query(LEAVE_HISTORY).bind(&gone).execute(&mut *connection).await.map_err(classify)?;
    sqlx::query(FORGET_ACTIVE_KEYS).bind(&gone).execute(&mut *connection).await.map_err(classify)?;
    let outlived = sqlx::query(FORGET_OUTLIVED).bind(&gone).bind(state.as_str());
    outlived.execute(&mut *connection).await.map_err(classify)?;
    for statement in FORGET_MESSAGES {
        sqlx::query(statement).bind(&gone).execute(&mut *connection).await.map_err(classify)?;
    }
    Ok(forgotten)
}

/// Keys whose window is over.
async fn forget_keys(connection: &mut MySqlConnection, limit: u32) -> Result<u64, Error> {
    let find = sqlx::query(FORGET_KEYS_FIND).bind(number(limit)).fetch_all(&mut *connection);
    let over = find.await.map_err(classify)?;
    if over.is_empty() {
        return Ok(0);
    }
    let these = list(over.iter().map(|row| Scope { f: row.get(0), k: row.get(1) }));
    let forget = sqlx::query(FORGET_KEYS).bind(these).execute(connection);
    Ok(forget.await.map_err(classify)?.rows_affected())
}
