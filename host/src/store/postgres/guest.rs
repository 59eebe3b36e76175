//! One session with a guest's transaction open, and the clock that ends what takes too long.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use sqlx::postgres::{PgArguments, PgConnection};
use sqlx::query::Query;
use sqlx::{AssertSqlSafe, Connection, Executor, Row};
use tokio::sync::OwnedSemaphorePermit;

use super::acknowledge::{self, Left};
use super::connection::Engine;
use super::guests::{App, AppSession, Guests};
use super::running::Backend;
use super::{Error, guest_sql, rehearsal, running};
use crate::message::Claim;
use crate::store::{Bounds, Commit, Rows, SqlError, Value};

const REHEARSE: &str = include_str!("rehearse.sql");

/// How long after a signal the next, stronger one comes.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long a statement of the host's own may take.
const SHORT: Duration = Duration::from_secs(10);

/// A cursor that is open.
pub(super) enum Cursor {
    /// On the server.
    Server,
    /// Rows that a statement that writes has returned.
    Rows(VecDeque<Vec<Value>>),
}

pub(super) struct Guest {
    /// None after it was lost.
    session: Option<AppSession>,
    process: i32,
    /// A savepoint whose name nobody can know: gone if the guest ended the transaction.
    canary: String,
    app: App,
    pub(super) cursors: HashMap<u32, Cursor>,
    engine: Engine,
    committed: bool,
    _room: OwnedSemaphorePermit,
}

impl Guest {
    /// A session with a transaction open, in which nothing was done.
    pub(super) async fn open(engine: Engine, guests: &Guests, app: App, lease: Duration) -> Result<Self, Error> {
        let canary = format!("semel_{}", hex::encode(rand::random::<[u8; 8]>()));
        // Said each time: a guest may have changed the default. A frozen host lets go of its rows after a lease.
        let begin = format!(
            "BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL idle_in_transaction_session_timeout = {}; SAVEPOINT {canary}",
            lease.as_millis().clamp(1, 2_000_000_000)
        );
        let (session, room) = guests.begin(&engine, &app, &begin).await?;
        let cursors = HashMap::new();
        Ok(Self {
            process: session.process,
            session: Some(session),
            canary,
            app,
            cursors,
            engine,
            committed: false,
            _room: room,
        })
    }

    /// Binds the transaction to claims, which share a token. None if one of them no longer holds.
    pub(super) async fn enter(&mut self, claims: &[Claim]) -> Result<Option<Backend>, SqlError> {
        self.bind_to(acknowledge::entering(&claims.iter().collect::<Vec<_>>())).await
    }

    /// Binds the transaction to a claim that nobody holds: the server refuses to commit it.
    pub(super) async fn rehearse(&mut self, claim: &Claim) -> Result<Option<Backend>, SqlError> {
        let announced = rehearsal::announce(&self.engine, claim).await;
        announced.map_err(|error| SqlError::Doomed(error.to_string()))?;
        let entered = self.bind_to(sqlx::query(REHEARSE).bind(claim.token.0.to_vec())).await;
        rehearsal::withdraw(&self.engine, claim).await;
        entered
    }

    async fn bind_to(
        &mut self,
        enter: Query<'static, sqlx::Postgres, PgArguments>,
    ) -> Result<Option<Backend>, SqlError> {
        let process = self.process;
        let enter = self.watched(Instant::now() + SHORT, move |sql| {
            Box::pin(async move {
                match enter.fetch_one(sql).await {
                    Ok(row) => Ok(Some((row.get(0), row.get(2)))),
                    Err(error) if acknowledge::is_fenced(&error) => Ok(None),
                    Err(error) => Err(guest_sql::refused(error)),
                }
            })
        });
        let Some((transaction, migrations)) = enter.await? else { return Ok(None) };
        let gone = || SqlError::Doomed("the transaction is over".into());
        self.session.as_mut().ok_or_else(gone)?.migrated(migrations).await.map_err(guest_sql::refused)?;
        Ok(Some(Backend { process, transaction }))
    }

    /// Runs a guest's statement that has passed the gate.
    pub(super) async fn query(
        &mut self,
        text: String,
        params: Vec<Value>,
        bounds: Bounds,
        reads: bool,
    ) -> Result<Rows, SqlError> {
        let query = self.watched(bounds.deadline, move |sql| {
            Box::pin(async move { guest_sql::query(sql, &text, &params, bounds, reads).await })
        });
        let rows = query.await;
        if matches!(rows, Err(SqlError::TooManyRows | SqlError::TooManyBytes)) {
            self.skip_the_rest().await;
        }
        rows
    }

    /// A statement of the host's own.
    pub(super) async fn host(&mut self, text: String) -> Result<(), SqlError> {
        let run = self.watched(Instant::now() + SHORT, move |sql| {
            Box::pin(async move { sql.execute(AssertSqlSafe(text)).await.map(drop).map_err(guest_sql::refused) })
        });
        run.await
    }

    /// Runs something on the session until a deadline; then the server is told to cancel it, then to end the session, and
    /// if that does not help either (nobody answers), the connection is closed.
    pub(super) async fn watched<T, F>(&mut self, deadline: Instant, operation: F) -> Result<T, SqlError>
    where
        F: for<'c> FnOnce(&'c mut PgConnection) -> BoxFuture<'c, Result<T, SqlError>> + Send,
    {
        let gone = || SqlError::Doomed("the transaction is over".into());
        let mut work = operation(&mut self.session.as_mut().ok_or_else(gone)?.sql);
        if let Ok(done) = tokio::time::timeout_at(deadline.into(), &mut work).await {
            return done;
        }
        for terminate in [false, true] {
            let (engine, process) = (self.engine.clone(), self.process);
            tokio::spawn(async move {
                let told = if terminate {
                    running::terminate(&engine, process).await
                } else {
                    running::cancel(&engine, process).await
                };
                if let Err(error) = told {
                    tracing::warn!(%error, "a statement beyond its deadline could not be ended");
                }
            });
            if tokio::time::timeout(PATIENCE, &mut work).await.is_ok() {
                return Err(SqlError::Deadline);
            }
        }
        drop(work);
        self.session = None;
        Err(SqlError::Deadline)
    }

    /// After a statement of which not all was read: the server stops sending, and what it sent is thrown away.
    async fn skip_the_rest(&mut self) {
        let told = running::cancel(&self.engine, self.process).await;
        let Some(session) = self.session.as_mut().filter(|_| told.is_ok()) else {
            self.session = None;
            return;
        };
        // Once for the server's word that it was cancelled, once for what comes after that.
        for _ in 0..2 {
            match tokio::time::timeout(SHORT, session.sql.ping()).await {
                Ok(Ok(())) => return,
                Ok(Err(sqlx::Error::Database(_))) => {}
                _ => break,
            }
        }
        self.session = None;
    }

    /// Acknowledges and commits: the only place where a guest's effects become visible.
    pub(super) async fn commit(&mut self, left: Vec<Left>) -> Commit {
        // Fails if the guest has ended the transaction, however it did.
        // A guest may have told the server to take the acknowledgement's texts for another encoding.
        let release = format!("RELEASE {}; SET LOCAL client_encoding = 'UTF8'", self.canary);
        if self.host(release).await.is_err() {
            return Commit::RolledBack;
        }
        let Some(session) = self.session.as_mut() else { return Commit::RolledBack };
        let committed = acknowledge::commit(&mut session.sql, &left).await;
        match committed {
            Commit::Committed => self.committed = true,
            Commit::Unknown => self.session = None, // Nothing more is said on this connection.
            _ => {}
        }
        committed
    }

    /// Nothing is left of what was not committed, and the session goes back.
    pub(super) async fn end(mut self, guests: &Guests) {
        if !self.committed && self.host("ROLLBACK".into()).await.is_err() {
            return; // Closed, and so undone.
        }
        if let Some(session) = self.session.take() {
            guests.give(self.app.name, session, self.committed).await;
        }
    }
}
