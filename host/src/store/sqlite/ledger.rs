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

use super::{Error, Sqlite, at, classify};
use crate::clock::{AnchoredClock, Timestamp};
use crate::store::ledger::{CallEnd, CallFilter, CallId, CallRecord, CallState, Intent, Ledger, cut};

const SCHEMA: &str = include_str!("../../../../migrations/sqlite-ledger/0001_calls.sql");
const CLAIM_HOLDS: &str = include_str!("claim_holds.sql");
const INTEND: &str = include_str!("ledger_intend.sql");
const FINISH: &str = include_str!("ledger_finish.sql");
const ABANDON: &str = include_str!("ledger_abandon.sql");
const RECOVER: &str = include_str!("ledger_recover.sql");
const CALLS: &str = include_str!("ledger_calls.sql");
const PAGE: &str = include_str!("ledger_page.sql");
const CALLED: &str = include_str!("ledger_called.sql");
const FORGET: &str = include_str!("ledger_forget.sql");
const FORGET_ORPHANS: &str = include_str!("ledger_forget_orphans.sql");

/// Marks a file as a ledger of Semel's ("SemC").
const APPLICATION: i64 = 0x5365_6d43;
/// The version of the schema that this program writes.
const VERSION: i64 = 1;

/// The ledger's own file.
pub(super) struct LedgerFile {
    /// One connection: there is one write lock.
    writer: SqlitePool,
    readers: SqlitePool,
    clock: AnchoredClock,
    path: PathBuf,
    /// Made with the first call, where there is no file yet: most hosts never call anybody.
    ready: OnceCell<()>,
}

impl LedgerFile {
    /// The ledger of a database that this process holds. What an earlier process left intended becomes unknown.
    pub(super) async fn open(database: &Path, clock: AnchoredClock) -> Result<Self, Error> {
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
            ledger.writer().await?;
            ledger.forget_orphans(database).await?;
        }
        Ok(ledger)
    }

    /// Makes the file if need be.
    async fn writer(&self) -> Result<&SqlitePool, Error> {
        let prepare = async || self.prepare().await.map_err(|error| at(&self.path, &error));
        self.ready.get_or_try_init(prepare).await.map(|()| &self.writer)
    }

    /// None if there was no call yet.
    fn readers(&self) -> Option<&SqlitePool> {
        self.ready.initialized().then_some(&self.readers)
    }

    /// Removes the calls of messages that are forgotten.
    pub(super) async fn forget(&self, messages: &[String]) -> Result<(), Error> {
        if self.ready.initialized() && !messages.is_empty() {
            let forget = sqlx::query(FORGET).bind(list(messages)).execute(&self.writer);
            forget.await.map_err(classify)?;
        }
        Ok(())
    }

    /// The same for a host that died between forgetting messages and forgetting their calls, which are two commits.
    async fn forget_orphans(&self, database: &Path) -> Result<(), Error> {
        let mut writer = self.writer.acquire().await.map_err(classify)?;
        let attach = sqlx::query("ATTACH $1 AS queue").bind(database.to_string_lossy().into_owned());
        attach.execute(&mut *writer).await.map_err(classify)?;
        let gone = sqlx::query(FORGET_ORPHANS).execute(&mut *writer).await.map_err(classify)?.rows_affected();
        if gone > 0 {
            tracing::info!(gone, "calls were forgotten whose messages are");
        }
        writer.execute("DETACH queue").await.map(drop).map_err(classify)
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

/// As `json_each` reads it.
fn list(texts: &[String]) -> String {
    serde_json::to_string(texts).unwrap_or_else(|_| "[]".into())
}

#[async_trait]
impl Ledger for Sqlite {
    async fn intend(&self, call: Intent) -> Result<CallId, Error> {
        let holds = sqlx::query(CLAIM_HOLDS).bind(&call.message).bind(call.fence).fetch_optional(&self.readers);
        if holds.await.map_err(classify)?.is_none() {
            return Err(Error::Fenced);
        }
        let intend = sqlx::query(INTEND)
            .bind(call.message)
            .bind(call.function)
            .bind(call.fence)
            .bind(call.attempt)
            .bind(call.ordinal)
            .bind(cut(&call.method))
            .bind(cut(&call.url))
            .bind(cut(&call.key))
            .bind(self.clock.now().0);
        let done = intend.execute(self.ledger.writer().await?).await.map_err(classify)?;
        Ok(CallId(done.last_insert_rowid()))
    }

    async fn finish(&self, call: CallId, end: CallEnd) -> Result<(), Error> {
        let (state, status, detail) = end.columns();
        let finish = sqlx::query(FINISH).bind(call.0).bind(state).bind(status).bind(detail).bind(self.clock.now().0);
        match finish.execute(self.ledger.writer().await?).await.map_err(classify)?.rows_affected() {
            1 => Ok(()),
            _ => Err(Error::Broken(format!("the call {} has ended before, or is not in the ledger", call.0))),
        }
    }

    async fn abandon(&self, message: &str, fence: i64, why: &str) -> Result<u64, Error> {
        let abandon = sqlx::query(ABANDON).bind(message).bind(fence).bind(cut(why)).bind(self.clock.now().0);
        let abandoned = abandon.execute(self.ledger.writer().await?).await.map_err(classify)?;
        Ok(abandoned.rows_affected())
    }

    async fn calls(&self, message: &str, ordinals: u32) -> Result<Vec<CallRecord>, Error> {
        let Some(readers) = self.ledger.readers() else { return Ok(Vec::new()) };
        let rows = sqlx::query(CALLS).bind(message).bind(ordinals).fetch_all(readers).await.map_err(classify)?;
        rows.iter().map(record).collect()
    }

    async fn ledger(&self, filter: CallFilter) -> Result<Vec<CallRecord>, Error> {
        let Some(readers) = self.ledger.readers() else { return Ok(Vec::new()) };
        let page = sqlx::query(PAGE)
            .bind(filter.function)
            .bind(filter.state.map(CallState::as_str))
            .bind(filter.message)
            .bind(filter.before.map(|id| id.0))
            .bind(filter.limit);
        page.fetch_all(readers).await.map_err(classify)?.iter().map(record).collect()
    }

    async fn called(&self, messages: &[String]) -> Result<Vec<String>, Error> {
        let Some(readers) = self.ledger.readers() else { return Ok(Vec::new()) };
        sqlx::query_scalar(CALLED).bind(list(messages)).fetch_all(readers).await.map_err(classify)
    }
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
