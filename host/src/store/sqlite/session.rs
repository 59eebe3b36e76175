//! The guest's transaction on SQLite: the writer's connection, lent for a turn.
//!
//! What a call asks for is done on the thread that asks, but for what takes stack: that goes to the writer's thread and
//! comes back.

use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::Notify;

use super::Error;
use super::accept::{insert_event, subscribers};
use super::acknowledge::{Left, commit};
use super::connection::Connection;
use super::guest_sql::{self, ensure_open};
use super::writer::{Lent, Writer};
use crate::message::{Answer, Claim, Event, Usage};
use crate::store::{
    Bounds, Column, Commit, DatabaseError, Published, Rows, Savepoint, Session, SqlError, StateOp, StateReply, Value,
};

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
    lent: Option<Lent>,
    claim: Option<Claim>,
    left: Vec<Left>,
    savepoints: Vec<String>,
    cursors: u32,
    published: bool,
    /// For a claim that nobody holds.
    rehearses: bool,
}

impl SqliteSession {
    pub(super) fn new(writer: Writer, work: Arc<Notify>, rehearses: bool) -> Self {
        Self {
            writer,
            work,
            lent: None,
            claim: None,
            left: Vec::new(),
            savepoints: Vec::new(),
            cursors: 0,
            published: false,
            rehearses,
        }
    }

    /// The connection, with the transaction open.
    async fn lent(&mut self) -> Result<&mut Lent, SqlError> {
        self.open().await.map_err(|e| doomed(&e))?;
        self.lent.as_mut().ok_or_else(|| SqlError::Doomed("the transaction is over".into()))
    }

    /// Does something in the transaction, here and now.
    async fn here<T>(&mut self, operation: impl FnOnce(&mut Connection) -> Result<T, SqlError>) -> Result<T, SqlError> {
        self.lent().await?.here(operation)
    }

    /// Runs a guest's statement: here if it is light, else on the writer's thread, to its end, even if nobody waits for
    /// the answer any more.
    async fn run<T: Send + 'static>(
        &mut self,
        is_light: impl FnOnce(&Connection) -> bool,
        operation: impl FnOnce(&mut Connection) -> Result<T, SqlError> + Send + 'static,
    ) -> Result<T, SqlError> {
        let lent = self.lent().await?;
        if lent.look().is_none_or(is_light) {
            return lent.here(operation);
        }
        let Some(lent) = self.lent.take() else { return Err(SqlError::Doomed("the transaction is over".into())) };
        let (lent, done) = lent.there(operation).await?;
        self.lent = Some(lent);
        done
    }

    /// Says on the walls whose statements run from now on.
    fn announce(&self) {
        if self.lent.is_some() {
            self.writer.walls.set_claim(self.claim.as_ref().map(|claim| (claim.seq, claim.fence)));
        }
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
        self.announce();
    }

    async fn open(&mut self) -> Result<(), Error> {
        if self.lent.is_none() {
            self.lent = Some(self.writer.turn().await?);
            self.announce();
        }
        Ok(())
    }

    async fn query(&mut self, sql: String, params: Vec<Value>, bounds: Bounds) -> Result<Rows, SqlError> {
        let sql: Arc<str> = sql.into();
        let text = Arc::clone(&sql);
        self.run(
            move |connection| guest_sql::is_light(connection, &text),
            move |connection| guest_sql::query(connection, &sql, &params, bounds),
        )
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
        let sql: Arc<str> = sql.into();
        let text = Arc::clone(&sql);
        let opened = self.run(
            move |connection| guest_sql::is_light(connection, &text),
            move |connection| guest_sql::open_cursor(connection, number, &sql, &params, bounds),
        );
        Ok((number, opened.await?))
    }

    async fn fetch(&mut self, cursor: u32, bounds: Bounds) -> Result<Vec<Vec<Value>>, SqlError> {
        self.run(
            move |connection| guest_sql::is_light_cursor(connection, cursor),
            move |connection| guest_sql::fetch(connection, cursor, bounds),
        )
        .await
    }

    async fn close_cursor(&mut self, cursor: u32) {
        if let Some(lent) = &mut self.lent {
            let closed = lent.here(|connection| {
                guest_sql::close_cursor(connection, cursor);
                Ok(())
            });
            let _ = closed; // If the transaction is over, so is the cursor.
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
        self.here(|connection| {
            ensure_open(connection)?;
            let Err(error) = connection.sql.execute_batch(&sql) else { return Ok(()) };
            ensure_open(connection)?;
            // For example a savepoint in the middle of a cursor that writes: the guest's mistake, nothing is lost.
            Err(SqlError::Database(Box::new(DatabaseError {
                sqlstate: "HY000".into(),
                message: error.to_string(),
                ..DatabaseError::default()
            })))
        })
        .await?;
        self.savepoints.truncate(keep);
        if let Savepoint::Set(name) = step {
            self.savepoints.push(name);
        }
        Ok(())
    }

    async fn state(&mut self, namespace: String, op: StateOp) -> Result<StateReply, SqlError> {
        self.here(|connection| {
            ensure_open(connection)?;
            state(connection, &namespace, op).map_err(|e| doomed(&e))
        })
        .await
    }

    async fn publish(&mut self, events: Vec<Event>) -> Result<Published, SqlError> {
        let published = self
            .here(|connection| {
                ensure_open(connection)?;
                publish(connection, &events).map_err(|e| doomed(&e))
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
        let committed = if let Some(mut lent) = self.lent.take() {
            lent.here(|connection| Ok(commit(connection, &left))).unwrap_or(Commit::Unknown)
        } else {
            // The guest touched nothing: the acknowledgement alone is a short operation of the engine.
            let alone = self.writer.run(move |connection| {
                connection.begin()?;
                let committed = commit(connection, &left);
                connection.end_guest();
                Ok(committed)
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
        drop(self.lent.take()); // Undone when this returns, so that what comes next finds the connection free.
    }
}

fn publish(connection: &Connection, events: &[Event]) -> Result<Published, Error> {
    let mut targets = Vec::new();
    for event in events {
        let functions = subscribers(connection, &event.topic)?;
        if functions.is_empty() {
            return Ok(Published::UnknownTopic(event.topic.clone()));
        }
        targets.push(functions);
    }
    for (event, functions) in events.iter().zip(targets) {
        insert_event(connection, event, &functions)?;
    }
    Ok(Published::Done)
}

fn state(connection: &Connection, namespace: &str, op: StateOp) -> Result<StateReply, Error> {
    let get = |key: &str| connection.optional(STATE_GET, (namespace, key), |row| row.get::<_, Vec<u8>>(0));
    Ok(match op {
        StateOp::Get { key } => StateReply::Value(get(&key)?),
        StateOp::Set { key, value } => {
            connection.execute(STATE_SET, (namespace, key, value))?;
            StateReply::Done
        }
        StateOp::Delete { key } => StateReply::Deleted(connection.execute(STATE_DELETE, (namespace, key))? == 1),
        StateOp::Add { key, delta } => {
            // A counter is its decimal text.
            let number = get(&key)?.map_or(Some(0), |bytes| std::str::from_utf8(&bytes).ok()?.parse::<i64>().ok());
            let Some(sum) = number.and_then(|number| number.checked_add(delta)) else {
                return Ok(StateReply::NotACounter);
            };
            connection.execute(STATE_SET, (namespace, key, sum.to_string().into_bytes()))?;
            StateReply::Sum(sum)
        }
        StateOp::Scan { prefix, after, limit } => {
            let after = after.unwrap_or_default();
            let params =
                |limit: u32| (namespace, &after, &prefix, limit, i64::try_from(prefix.len()).unwrap_or(i64::MAX));
            let sizes = connection.all(STATE_MEASURE, params(limit), |row| row.get(0))?;
            let fits = fitting(sizes.into_iter());
            StateReply::Entries(connection.all(STATE_SCAN, params(fits), |row| Ok((row.get(0)?, row.get(1)?)))?)
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
