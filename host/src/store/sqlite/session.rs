//! The guest's transaction on SQLite: every call is a closure that runs on the writer's thread, in its turn.

use async_trait::async_trait;
use futures_util::future::LocalBoxFuture;
use sqlx::{Executor, Row};
use std::sync::Arc;
use tokio::sync::{Notify, mpsc, oneshot};

use super::accept::{insert_event, subscribers};
use super::connection::Connection;
use super::guest_sql;
use super::queue::record_attempt;
use super::writer::{Work, Writer};
use super::{Error, classify, group};
use crate::crash::{self, Point};
use crate::message::{Answer, Claim, Event, Usage};
use crate::store::{
    Bounds, Column, Commit, DatabaseError, Published, Rows, Savepoint, Session, SqlError, StateOp, StateReply, Value,
};

const COMPLETE: &str = include_str!("complete.sql");
pub(super) const ACKNOWLEDGE: &str = include_str!("acknowledge.sql");
const STATE_GET: &str = include_str!("state_get.sql");
const STATE_SET: &str = include_str!("state_set.sql");
const STATE_DELETE: &str = include_str!("state_delete.sql");
const STATE_MEASURE: &str = include_str!("state_measure.sql");
const STATE_SCAN: &str = include_str!("state_scan.sql");
/// Bytes that one scan may return.
const SCAN_BYTES: i64 = 8 << 20;

pub(super) struct SqliteSession {
    writer: Writer,
    work: Arc<Notify>,
    turn: Option<mpsc::Sender<Work>>,
    claim: Option<Claim>,
    left: Vec<Left>,
    savepoints: Vec<String>,
    cursors: u32,
    published: bool,
    /// For a claim that nobody holds.
    rehearses: bool,
}

/// A claim that has done its part and waits for the commit.
struct Left {
    claim: Claim,
    answer: Option<Answer>,
    usage: Usage,
}

impl SqliteSession {
    pub(super) fn new(writer: Writer, work: Arc<Notify>, rehearses: bool) -> Self {
        Self {
            writer,
            work,
            turn: None,
            claim: None,
            left: Vec::new(),
            savepoints: Vec::new(),
            cursors: 0,
            published: false,
            rehearses,
        }
    }

    /// Runs something in the transaction. It runs to its end even if nobody waits for the answer any more.
    async fn call<T, F>(&mut self, operation: F) -> Result<T, SqlError>
    where
        T: Send + 'static,
        F: for<'c> FnOnce(&'c mut Connection) -> LocalBoxFuture<'c, Result<T, SqlError>> + Send + 'static,
    {
        let gone = || SqlError::Doomed("the transaction is over".into());
        self.open().await.map_err(|e| doomed(&e))?;
        let turn = self.turn.as_ref().ok_or_else(gone)?;
        let claim = self.claim.as_ref().map(|claim| (claim.seq, claim.fence));
        let (reply, answer) = oneshot::channel();
        let work: Work = Box::new(move |connection| {
            connection.walls.set_claim(claim);
            Box::pin(async move {
                let _ = reply.send(operation(connection).await);
            })
        });
        turn.send(work).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }
}

fn doomed(error: &Error) -> SqlError {
    tracing::warn!(%error, "a transaction was lost");
    SqlError::Doomed("the database is not available".into())
}

#[async_trait]
impl Session for SqliteSession {
    fn enter(&mut self, claim: &Claim) {
        self.claim = Some(claim.clone());
        self.savepoints.clear();
    }

    async fn open(&mut self) -> Result<(), Error> {
        if self.turn.is_none() {
            self.turn = Some(self.writer.turn().await?);
        }
        Ok(())
    }

    async fn query(&mut self, sql: String, params: Vec<Value>, bounds: Bounds) -> Result<Rows, SqlError> {
        self.call(move |connection| {
            Box::pin(async move {
                let Connection { sql: session, walls, .. } = connection;
                let mut handle = guest_sql::enter(session).await?;
                let mut statement = guest_sql::prepare(&mut handle, walls, &sql, &params, bounds.deadline)?;
                guest_sql::step(&mut handle, walls, &mut statement, bounds, false)
            })
        })
        .await
    }

    async fn open_cursor(
        &mut self,
        sql: String,
        params: Vec<Value>,
        bounds: Bounds,
    ) -> Result<(u32, Vec<Column>), SqlError> {
        self.cursors += 1;
        let number = self.cursors;
        self.call(move |connection| {
            Box::pin(async move {
                let Connection { sql: session, walls, cursors, .. } = connection;
                let mut handle = guest_sql::enter(session).await?;
                let mut statement = guest_sql::prepare(&mut handle, walls, &sql, &params, bounds.deadline)?;
                guest_sql::start(&mut handle, walls, &mut statement, bounds)?;
                let columns = statement.columns.clone();
                cursors.insert(number, statement);
                Ok((number, columns))
            })
        })
        .await
    }

    async fn fetch(&mut self, cursor: u32, bounds: Bounds) -> Result<Vec<Vec<Value>>, SqlError> {
        self.call(move |connection| {
            Box::pin(async move {
                let Connection { sql: session, walls, cursors, .. } = connection;
                let mut handle = guest_sql::enter(session).await?;
                let over = || SqlError::Parameter("the cursor is closed".into());
                let statement = cursors.get_mut(&cursor).ok_or_else(over)?;
                guest_sql::step(&mut handle, walls, statement, bounds, true).map(|rows| rows.rows)
            })
        })
        .await
    }

    async fn close_cursor(&mut self, cursor: u32) {
        if self.turn.is_some() {
            let closed = self.call(move |connection| {
                Box::pin(async move {
                    let Connection { sql: session, cursors, .. } = connection;
                    let _handle = session.lock_handle().await; // Statements end while nobody else is at the connection.
                    cursors.remove(&cursor);
                    Ok(())
                })
            });
            let _ = closed.await; // If the transaction is over, so is the cursor.
        }
    }

    async fn savepoint(&mut self, step: Savepoint) -> Result<(), SqlError> {
        // The guest's names stay here; SQLite sees numbers, so no name can mean anything to it.
        let find = |name: &str| self.savepoints.iter().rposition(|known| known == name).ok_or(SqlError::NoSavepoint);
        let (sql, keep) = match &step {
            Savepoint::Set(_) => (format!("SAVEPOINT semel_{}", self.savepoints.len()), self.savepoints.len()),
            Savepoint::RollbackTo(name) => {
                let place = find(name)?;
                (format!("ROLLBACK TO semel_{place}"), place + 1)
            }
            Savepoint::Release(name) => {
                let place = find(name)?;
                (format!("RELEASE semel_{place}"), place)
            }
        };
        self.call(move |connection| {
            Box::pin(async move {
                connection.ensure_in_transaction().await?;
                let Err(error) = connection.sql.execute(sqlx::AssertSqlSafe(sql)).await else { return Ok(()) };
                connection.ensure_in_transaction().await?;
                // For example a savepoint in the middle of a cursor that writes: the guest's mistake, nothing is lost.
                let message = error.to_string();
                Err(SqlError::Database(Box::new(DatabaseError {
                    sqlstate: "HY000".into(),
                    message,
                    ..DatabaseError::default()
                })))
            })
        })
        .await?;
        self.savepoints.truncate(keep);
        if let Savepoint::Set(name) = step {
            self.savepoints.push(name);
        }
        Ok(())
    }

    async fn state(&mut self, namespace: String, op: StateOp) -> Result<StateReply, SqlError> {
        self.call(move |connection| {
            Box::pin(async move {
                connection.ensure_in_transaction().await?;
                state(connection, &namespace, op).await.map_err(|e| doomed(&classify(e)))
            })
        })
        .await
    }

    async fn publish(&mut self, events: Vec<Event>) -> Result<Published, SqlError> {
        let published = self
            .call(move |connection| {
                Box::pin(async move {
                    connection.ensure_in_transaction().await?;
                    publish(connection, &events).await.map_err(|e| doomed(&e))
                })
            })
            .await?;
        self.published |= published == Published::Done;
        Ok(published)
    }

    fn leave(&mut self, answer: Option<Answer>, usage: Usage) {
        if let Some(claim) = self.claim.take() {
            self.left.push(Left { claim, answer, usage });
        }
    }

    async fn commit(mut self: Box<Self>) -> Commit {
        if self.rehearses {
            self.rollback().await;
            return Commit::RolledBack;
        }
        let left = std::mem::take(&mut self.left);
        let committed = if self.turn.is_some() {
            self.call(move |connection| Box::pin(async move { Ok(commit(connection, &left).await) }))
                .await
                .unwrap_or(Commit::Unknown)
        } else {
            // The guest touched nothing: the acknowledgement alone is a short operation of the engine.
            let alone = self.writer.run(move |connection| {
                Box::pin(async move {
                    connection.sql.execute("BEGIN IMMEDIATE").await.map_err(classify)?;
                    let committed = commit(connection, &left).await;
                    connection.end_guest().await;
                    Ok(committed)
                })
            });
            alone.await.unwrap_or_else(|error| {
                if matches!(error, Error::Unavailable(_)) { Commit::RolledBack } else { Commit::Unknown }
            })
        };
        if self.published && committed == Commit::Committed {
            self.work.notify_one();
        }
        committed
    }

    async fn rollback(mut self: Box<Self>) {
        if self.turn.is_some() {
            // Answered when the transaction is undone, so that what comes next finds the connection free.
            let undone = self.call(|connection| {
                Box::pin(async move {
                    connection.end_guest().await;
                    Ok(())
                })
            });
            let _ = undone.await; // A transaction that is over needs no rollback.
        }
    }
}

/// Acknowledges and commits: the only place where a guest's effects become visible.
async fn commit(connection: &mut Connection, left: &[Left]) -> Commit {
    connection.take_over().await;
    if left.is_empty() || connection.ensure_in_transaction().await.is_err() {
        return Commit::RolledBack;
    }
    match acknowledge(connection, left).await {
        Ok(true) => {}
        Ok(false) => return Commit::Fenced,
        Err(error) => {
            tracing::error!(%error, "an acknowledgement failed");
            return Commit::RolledBack;
        }
    }
    crash::point(Point::Acknowledged);
    match crash::during(Point::CommitSent, connection.sql.execute("COMMIT")).await {
        Ok(_) => Commit::Committed,
        Err(error) => {
            tracing::error!(%error, "a commit failed");
            // Still open: SQLite took nothing and the caller's end of the turn undoes it. Otherwise nobody knows yet.
            if connection.ensure_in_transaction().await.is_ok() { Commit::RolledBack } else { Commit::Unknown }
        }
    }
}

/// False as soon as one claim no longer holds. The acknowledgements are the last statements before COMMIT.
async fn acknowledge(connection: &mut Connection, left: &[Left]) -> Result<bool, Error> {
    let now = connection.clock.now();
    for Left { claim, answer, usage } in left {
        let given = answer.clone().unwrap_or_default();
        let headers = serde_json::to_string(&given.headers).unwrap_or_default();
        let complete = sqlx::query(COMPLETE)
            .bind(claim.seq)
            .bind(now.0)
            .bind(answer.is_some())
            .bind(given.content_type)
            .bind(headers)
            .bind(given.body);
        complete.execute(&mut connection.sql).await.map_err(classify)?;
        record_attempt(connection, claim, "completed", None, usage).await?;
        group::after(connection, claim, Some(claim.seq)).await?;
    }
    for Left { claim, .. } in left {
        let acknowledge = sqlx::query(ACKNOWLEDGE).bind(claim.seq).bind(claim.fence).bind(claim.token.hash());
        if acknowledge.execute(&mut connection.sql).await.map_err(classify)?.rows_affected() != 1 {
            return Ok(false);
        }
    }
    Ok(true)
}

async fn publish(connection: &mut Connection, events: &[Event]) -> Result<Published, Error> {
    let mut targets = Vec::new();
    for event in events {
        let functions = subscribers(connection, &event.topic).await?;
        if functions.is_empty() {
            return Ok(Published::UnknownTopic(event.topic.clone()));
        }
        targets.push(functions);
    }
    for (event, functions) in events.iter().zip(targets) {
        insert_event(connection, event, &functions).await?;
    }
    Ok(Published::Done)
}

async fn state(connection: &mut Connection, namespace: &str, op: StateOp) -> Result<StateReply, sqlx::Error> {
    let sql = &mut connection.sql;
    Ok(match op {
        StateOp::Get { key } => {
            StateReply::Value(sqlx::query_scalar(STATE_GET).bind(namespace).bind(key).fetch_optional(sql).await?)
        }
        StateOp::Set { key, value } => {
            sqlx::query(STATE_SET).bind(namespace).bind(key).bind(value).execute(sql).await?;
            StateReply::Done
        }
        StateOp::Delete { key } => {
            let deleted = sqlx::query(STATE_DELETE).bind(namespace).bind(key).execute(sql).await?;
            StateReply::Deleted(deleted.rows_affected() == 1)
        }
        StateOp::Add { key, delta } => {
            let get = sqlx::query_scalar(STATE_GET).bind(namespace).bind(&key);
            let old: Option<Vec<u8>> = get.fetch_optional(&mut *sql).await?;
            // A counter is its decimal text.
            let number = old.map_or(Some(0), |bytes| std::str::from_utf8(&bytes).ok()?.parse::<i64>().ok());
            let Some(sum) = number.and_then(|number| number.checked_add(delta)) else {
                return Ok(StateReply::NotACounter);
            };
            let set = sqlx::query(STATE_SET).bind(namespace).bind(key).bind(sum.to_string().into_bytes());
            set.execute(sql).await?;
            StateReply::Sum(sum)
        }
        StateOp::Scan { prefix, after, limit } => {
            let (after, length) = (after.unwrap_or_default(), i64::try_from(prefix.len()).unwrap_or(i64::MAX));
            let scan = |text, limit: u32| {
                sqlx::query(text).bind(namespace).bind(after.as_str()).bind(prefix.as_str()).bind(limit).bind(length)
            };
            let sizes = scan(STATE_MEASURE, limit).fetch_all(&mut *sql).await?;
            let fits = fitting(sizes.iter().map(|row| row.get(0)));
            let rows = scan(STATE_SCAN, fits).fetch_all(sql).await?;
            StateReply::Entries(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
        }
    })
}

/// How many of these values may be held at once; always one.
fn fitting(sizes: impl Iterator<Item = i64>) -> u32 {
    let mut held = 0;
    let fits = sizes.take_while(|size| {
        let first = held == 0;
        held += size + 1024;
        first || held <= SCAN_BYTES
    });
    u32::try_from(fits.count()).unwrap_or(u32::MAX)
}
