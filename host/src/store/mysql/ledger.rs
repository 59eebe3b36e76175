//! The ledger: a table beside the queue, written by the engine's own sessions. Every operation is one statement,
//! which is one commit, durable when it returns.

use async_trait::async_trait;
use sqlx::Row;
use sqlx::mysql::{MySqlConnection, MySqlRow};

use super::list::list;
use super::{Error, Mysql, classify, number, unsigned};
use crate::clock::Timestamp;
use crate::store::ledger::{CallEnd, CallFilter, CallId, CallRecord, CallState, Intent, Ledger, cut};

const INTEND: &str = include_str!("ledger_intend.sql");
const FINISH: &str = include_str!("ledger_finish.sql");
const ABANDON: &str = include_str!("ledger_abandon.sql");
const RECOVER_FIND: &str = include_str!("ledger_recover_find.sql");
const RECOVER: &str = include_str!("ledger_recover.sql");
const CALLS: &str = include_str!("ledger_calls.sql");
const PAGE: &str = include_str!("ledger_page.sql");
const CALLED: &str = include_str!("ledger_called.sql");

#[async_trait]
impl Ledger for Mysql {
    async fn intend(&self, call: Intent) -> Result<CallId, Error> {
        let intend = self.engine.run(move |session| {
            Box::pin(async move {
                let intend = sqlx::query(INTEND)
                    .bind(&call.message)
                    .bind(call.function)
                    .bind(call.fence)
                    .bind(number(call.attempt))
                    .bind(number(call.ordinal))
                    .bind(cut(&call.method))
                    .bind(cut(&call.url))
                    .bind(cut(&call.key))
                    .bind(&call.message)
                    .bind(call.fence);
                intend.execute(session).await.map_err(classify)
            })
        });
        let intended = intend.await?;
        match (intended.rows_affected(), i64::try_from(intended.last_insert_id())) {
            (1, Ok(id)) => Ok(CallId(id)),
            _ => Err(Error::Fenced),
        }
    }

    async fn finish(&self, call: CallId, end: CallEnd) -> Result<(), Error> {
        let finish = self.engine.run(move |session| {
            Box::pin(async move {
                let (state, status, detail) = end.columns();
                let finish = sqlx::query(FINISH).bind(state).bind(status.map(i64::from)).bind(detail).bind(call.0);
                finish.execute(session).await.map_err(classify)
            })
        });
        match finish.await?.rows_affected() {
            1 => Ok(()),
            _ => Err(Error::Broken(format!("the call {} has ended before, or is not in the ledger", call.0))),
        }
    }

    async fn abandon(&self, message: &str, fence: i64, why: &str) -> Result<u64, Error> {
        let (message, why) = (message.to_owned(), why.to_owned());
        let abandon = self.engine.run(move |session| {
            Box::pin(async move {
                let abandon = sqlx::query(ABANDON).bind(cut(&why)).bind(message).bind(fence);
                abandon.execute(session).await.map_err(classify)
            })
        });
        Ok(abandon.await?.rows_affected())
    }

    async fn calls(&self, message: &str, ordinals: u32) -> Result<Vec<CallRecord>, Error> {
        let rows =
            sqlx::query(CALLS).bind(message).bind(number(ordinals)).fetch_all(&self.readers).await.map_err(classify)?;
        rows.iter().map(record).collect()
    }

    async fn ledger(&self, filter: CallFilter) -> Result<Vec<CallRecord>, Error> {
        let (state, before) = (filter.state.map(CallState::as_str), filter.before.map(|id| id.0));
        let page = sqlx::query(PAGE)
            .bind(&filter.function)
            .bind(&filter.function)
            .bind(state)
            .bind(state)
            .bind(&filter.message)
            .bind(&filter.message)
            .bind(before)
            .bind(before)
            .bind(state)
            .bind(state)
            .bind(number(filter.limit));
        page.fetch_all(&self.readers).await.map_err(classify)?.iter().map(record).collect()
    }

    async fn called(&self, messages: &[String]) -> Result<Vec<String>, Error> {
        sqlx::query_scalar(CALLED).bind(list(messages)).fetch_all(&self.readers).await.map_err(classify)
    }
}

/// In the transaction of a recovery.
pub(super) async fn recover(connection: &mut MySqlConnection) -> Result<(), Error> {
    let find = sqlx::query_scalar(RECOVER_FIND).fetch_all(&mut *connection);
    let left: Vec<i64> = find.await.map_err(classify)?;
    if left.is_empty() {
        return Ok(());
    }
    tracing::warn!(
        left = left.len(),
        "calls were being made under claims that are lost; nobody knows what became of them"
    );
    let why = "the claim ended without a record: its host was lost, or stood still";
    sqlx::query(RECOVER).bind(list(left)).bind(why).execute(connection).await.map(drop).map_err(classify)
}

fn record(row: &MySqlRow) -> Result<CallRecord, Error> {
    let state = CallState::parse(row.get("state")).ok_or_else(|| Error::Broken("a call in no known state".into()))?;
    let status: Option<i64> = row.get("status");
    Ok(CallRecord {
        id: CallId(row.get("id")),
        intent: Intent {
            message: row.get("message"),
            function: row.get("function"),
            fence: row.get("fence"),
            attempt: unsigned(row.get("attempt")),
            ordinal: unsigned(row.get("ordinal")),
            method: row.get("method"),
            url: row.get("url"),
            key: row.get("key"),
        },
        state,
        status: status.and_then(|status| u16::try_from(status).ok()),
        detail: row.get("detail"),
        intended_at: Timestamp(row.get("intended_at")),
        ended_at: row.get::<Option<i64>, _>("ended_at").map(Timestamp),
    })
}
