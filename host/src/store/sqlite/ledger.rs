//! The ledger on SQLite: a file of its own beside the database, since a guest that calls may hold the database's one
//! write lock, and what it intends must be durable before it is done.
//!
//! Every operation is one statement, which is one commit: nothing can be left open by whoever goes away.

use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteRow, SqliteSynchronous,
};
use sqlx::{AssertSqlSafe, Executor, Row};
use tokio::sync::OnceCell;

use super::{Error, at, classify};
use crate::clock::{AnchoredClock, Timestamp};
use crate::store::ledger::{CallEnd, CallId, CallRecord, CallState, Intent, Ledger};

const SCHEMA: &str = include_str!("../../../../migrations/sqlite-ledger/0001_calls.sql");
const INTEND: &str = include_str!("ledger_intend.sql");
const FINISH: &str = include_str!("ledger_finish.sql");
const ABANDON: &str = include_str!("ledger_abandon.sql");
const RECOVER: &str = include_str!("ledger_recover.sql");
const CALLS: &str = include_str!("ledger_calls.sql");
const UNKNOWN: &str = include_str!("ledger_unknown.sql");
const FORGET: &str = include_str!("ledger_forget.sql");

/// Marks a file as a ledger of Semel's ("SemC").
const APPLICATION: i64 = 0x5365_6d43;
/// The version of the schema that this program writes.
const VERSION: i64 = 1;
/// Calls of one message that are listed.
const MOST_CALLS: u32 = 10_000;
/// Bytes of a URL that are kept.
const URL_BYTES: usize = 2 << 10;
/// Bytes of a detail that are kept.
const DETAIL_BYTES: usize = 1 << 10;

pub(crate) struct SqliteLedger {
    /// One connection: there is one write lock.
    writer: SqlitePool,
    readers: SqlitePool,
    clock: AnchoredClock,
    path: PathBuf,
    /// Made with the first call, where there is no file yet: most hosts never call anybody.
    ready: OnceCell<()>,
}

impl SqliteLedger {
    /// The ledger of a database that this process holds. What an earlier process left intended becomes unknown.
    pub(crate) async fn open(database: &Path, clock: AnchoredClock) -> Result<Self, Error> {
        let mut path = database.as_os_str().to_owned();
        path.push(".ledger");
        let path = PathBuf::from(path);
        let options = SqliteConnectOptions::new()
            .filename(&path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(Duration::from_secs(5))
            .optimize_on_close(false, None);
        let reading = SqliteConnectOptions::new().filename(&path).read_only(true).busy_timeout(Duration::from_secs(5));
        let pool = || SqlitePoolOptions::new().test_before_acquire(false).idle_timeout(None).max_lifetime(None);
        let ledger = Self {
            writer: pool().max_connections(1).connect_lazy_with(options),
            readers: pool().max_connections(2).connect_lazy_with(reading),
            clock,
            path,
            ready: OnceCell::new(),
        };
        if ledger.path.exists() {
            ledger.ready().await?;
        }
        Ok(ledger)
    }

    async fn ready(&self) -> Result<(), Error> {
        let prepare = async || self.prepare().await.map_err(|error| at(&self.path, &error));
        self.ready.get_or_try_init(prepare).await.copied()
    }

    async fn prepare(&self) -> Result<(), Error> {
        let owner = self.number("PRAGMA application_id").await?;
        let tables = self.number("SELECT count(*) FROM sqlite_schema").await?;
        match (owner, self.number("PRAGMA user_version").await?) {
            (0, _) if tables == 0 => self.create().await?,
            (APPLICATION, VERSION) => {}
            (APPLICATION, found) => {
                return Err(Error::Refused(format!("the ledger has version {found}, this program knows {VERSION}")));
            }
            _ => return Err(Error::Refused("this is no ledger of Semel".into())),
        }
        let recover = sqlx::query(RECOVER).bind("the host that made the call died").bind(self.clock.now().0);
        let left = recover.execute(&self.writer).await.map_err(classify)?.rows_affected();
        if left > 0 {
            tracing::warn!(left, "calls were being made when the last host died; nobody knows what became of them");
        }
        Ok(())
    }

    async fn number(&self, sql: &'static str) -> Result<i64, Error> {
        self.writer.fetch_one(sql).await.map(|row| row.get(0)).map_err(classify)
    }

    /// One text and one transaction: a file is a ledger or empty.
    async fn create(&self) -> Result<(), Error> {
        let sql =
            format!("BEGIN; {SCHEMA} PRAGMA application_id = {APPLICATION}; PRAGMA user_version = {VERSION}; COMMIT");
        self.writer.execute(AssertSqlSafe(sql)).await.map(drop).map_err(classify)
    }
}

#[async_trait]
impl Ledger for SqliteLedger {
    async fn intend(&self, call: Intent) -> Result<CallId, Error> {
        self.ready().await?;
        let intend = sqlx::query(INTEND)
            .bind(call.message)
            .bind(call.function)
            .bind(call.fence)
            .bind(call.attempt)
            .bind(call.ordinal)
            .bind(call.method)
            .bind(cut(&call.url, URL_BYTES))
            .bind(call.key)
            .bind(self.clock.now().0);
        let done = intend.execute(&self.writer).await.map_err(classify)?;
        Ok(CallId(done.last_insert_rowid()))
    }

    async fn finish(&self, call: CallId, end: CallEnd) -> Result<(), Error> {
        self.ready().await?;
        let (state, status, detail) = match &end {
            CallEnd::Done(status) => (CallState::Done, Some(*status), None),
            CallEnd::Failed(why) => (CallState::Failed, None, Some(cut(why, DETAIL_BYTES))),
            CallEnd::Unknown(why) => (CallState::Unknown, None, Some(cut(why, DETAIL_BYTES))),
        };
        let finish =
            sqlx::query(FINISH).bind(call.0).bind(state.as_str()).bind(status).bind(detail).bind(self.clock.now().0);
        match finish.execute(&self.writer).await.map_err(classify)?.rows_affected() {
            1 => Ok(()),
            _ => Err(Error::Broken(format!("the call {} has ended before, or is not in the ledger", call.0))),
        }
    }

    async fn abandon(&self, message: &str, fence: i64, why: &str) -> Result<u64, Error> {
        self.ready().await?;
        let abandon =
            sqlx::query(ABANDON).bind(message).bind(fence).bind(cut(why, DETAIL_BYTES)).bind(self.clock.now().0);
        abandon.execute(&self.writer).await.map(|done| done.rows_affected()).map_err(classify)
    }

    async fn calls(&self, message: &str) -> Result<Vec<CallRecord>, Error> {
        self.ready().await?;
        let rows = sqlx::query(CALLS).bind(message).bind(MOST_CALLS).fetch_all(&self.readers).await;
        rows.map_err(classify)?.iter().map(record).collect()
    }

    async fn unknown_calls(&self, before: Option<CallId>, limit: u32) -> Result<Vec<CallRecord>, Error> {
        self.ready().await?;
        let rows = sqlx::query(UNKNOWN).bind(before.map(|id| id.0)).bind(limit).fetch_all(&self.readers).await;
        rows.map_err(classify)?.iter().map(record).collect()
    }

    async fn forget_calls(&self, messages: &[String]) -> Result<u64, Error> {
        self.ready().await?;
        let ids = serde_json::to_string(messages).map_err(|e| Error::Broken(e.to_string()))?;
        let forgotten = sqlx::query(FORGET).bind(ids).execute(&self.writer).await;
        forgotten.map(|done| done.rows_affected()).map_err(classify)
    }
}

/// The longest beginning that fits and ends between characters.
fn cut(text: &str, longest: usize) -> &str {
    &text[..text.floor_char_boundary(longest)]
}

fn record(row: &SqliteRow) -> Result<CallRecord, Error> {
    let state = CallState::parse(row.get("state")).ok_or_else(|| Error::Broken("a call in no known state".into()))?;
    Ok(CallRecord {
        id: CallId(row.get("id")),
        intent: Intent {
            message: row.get("message"),
            function: row.get("function"),
            fence: row.get("fence"),
            attempt: row.get("attempt"),
            ordinal: row.get("ordinal"),
            method: row.get("method"),
            url: row.get("url"),
            key: row.get("key"),
        },
        state,
        status: row.get("status"),
        detail: row.get("detail"),
        intended_at: Timestamp(row.get("intended_at")),
        ended_at: row.get::<Option<i64>, _>("ended_at").map(Timestamp),
    })
}
