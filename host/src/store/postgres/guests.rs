//! Sessions for guests: a few per app, each of that app's login (`access.rs`).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Executor, Row};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::access::Access;
use super::connection::Engine;
use super::{Error, classify, errors};
use crate::store::Login;

const VERSION_APP: &str = include_str!("version_app.sql");
const SESSION: &str = include_str!("session.sql");
const RESET: &str = include_str!("reset.sql");
const RESET_LOCKS: &str = include_str!("reset_locks.sql");

/// Guests' sessions of this host at once.
pub(super) const SESSIONS: usize = 32;
/// Texts whose plan a session keeps.
const STATEMENTS: usize = 64;
/// How long a new session may take.
const CONNECT: Duration = Duration::from_secs(10);
/// How long one that was used before may take to begin a transaction.
const SIGN_OF_LIFE: Duration = Duration::from_secs(2);

/// Whose session a guest has.
#[derive(Debug, Clone)]
pub(super) struct App {
    pub(super) name: String,
    /// None: the engine's.
    login: Option<Login>,
}

pub(super) struct Guests {
    options: PgConnectOptions,
    access: Arc<Access>,
    idle: Mutex<HashMap<String, Vec<AppSession>>>,
    apps: Mutex<HashMap<(String, i64), App>>,
    room: Arc<Semaphore>,
}

impl Guests {
    pub(super) fn new(options: PgConnectOptions, access: Arc<Access>) -> Self {
        let room = Arc::new(Semaphore::new(SESSIONS));
        Self { options, access, idle: Mutex::default(), apps: Mutex::default(), room }
    }

    /// Whose login runs a version.
    pub(super) async fn app(&self, engine: &Engine, function: &str, version: i64) -> Result<App, Error> {
        let key = (function.to_owned(), version);
        if let Some(app) = self.apps.lock().unwrap_or_else(PoisonError::into_inner).get(&key) {
            return Ok(app.clone());
        }
        let name = function.to_owned();
        let find = engine.run(move |connection| {
            Box::pin(async move {
                let find = sqlx::query(VERSION_APP).bind(name).bind(version);
                find.fetch_optional(connection).await.map_err(classify)
            })
        });
        let row = find.await?.ok_or_else(|| Error::Broken(format!("version {version} of {function} is not there")))?;
        let name: String = row.get(0);
        let app = App { login: self.access.login(&name, row.get(1))?, name };
        self.apps.lock().unwrap_or_else(PoisonError::into_inner).insert(key, app.clone());
        Ok(app)
    }

    /// A session of an app, as new, in which the transaction has begun. What is said first on it shows whether it still lives.
    pub(super) async fn begin(
        &self,
        engine: &Engine,
        app: &App,
        begin: &str,
    ) -> Result<(AppSession, OwnedSemaphorePermit), Error> {
        let room = Arc::clone(&self.room).acquire_owned().await;
        let room = room.map_err(|_| Error::Unavailable("the store is closed".into()))?;
        while let Some(mut idle) = self.pop(app) {
            let begun = sqlx::raw_sql(AssertSqlSafe(begin.to_owned())).execute(&mut idle.sql);
            if matches!(tokio::time::timeout(SIGN_OF_LIFE, begun).await, Ok(Ok(_))) {
                return Ok((idle, room));
            }
        }
        let late = |_| Error::Unavailable("a session takes too long to open".into());
        let fresh = async {
            let mut session = AppSession::new(self.fresh(engine, app).await?).await?;
            let begun = sqlx::raw_sql(AssertSqlSafe(begin.to_owned())).execute(&mut session.sql).await;
            begun.map(|_| session).map_err(classify)
        };
        Ok((tokio::time::timeout(CONNECT, fresh).await.map_err(late)??, room))
    }

    async fn fresh(&self, engine: &Engine, app: &App) -> Result<PgConnection, Error> {
        match self.connect(&app.name, app.login.as_ref()).await {
            Err(Error::Refused(why)) => {
                // Its password may be another one: of a database of before, or because a function of the app changed it.
                tracing::warn!(app = app.name, why, "the app's login is refused; it is made anew");
                self.access.prepare(engine, &app.name).await?;
                self.connect(&app.name, app.login.as_ref()).await
            }
            done => done,
        }
    }

    fn pop(&self, app: &App) -> Option<AppSession> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).get_mut(&app.name).and_then(Vec::pop)
    }

    /// A session of an app's own, for a login or else for the engine's.
    pub(super) async fn connect(&self, app: &str, login: Option<&Login>) -> Result<PgConnection, Error> {
        // No log of what guests say: it is theirs, and they could fill it.
        let mut options = self.options.clone().disable_statement_logging();
        options = options.statement_cache_capacity(STATEMENTS).options([("search_path", format!("\"{app}\""))]);
        if let Some(login) = login {
            options = options.username(&login.name).password(&login.password);
        }
        let late = |_| Error::Unavailable("a session takes too long to open".into());
        tokio::time::timeout(CONNECT, options.connect()).await.map_err(late)?.map_err(errors::at_login)
    }

    /// Takes a session back after its transaction has ended; one that cannot be made as new is closed.
    pub(super) async fn give(&self, app: String, mut session: AppSession, committed: bool) {
        let clean = tokio::time::timeout(Duration::from_secs(5), session.clean(committed));
        if matches!(clean.await, Ok(Ok(()))) {
            self.idle.lock().unwrap_or_else(PoisonError::into_inner).entry(app).or_default().push(session);
        }
    }
}

/// A session of an app's login.
pub(super) struct AppSession {
    pub(super) sql: PgConnection,
    /// The server's process.
    pub(super) process: i32,
    /// How many migrations the app had had when the plans were made that this session keeps.
    migrations: Option<i64>,
    /// Whether the login may take locks that outlive a transaction.
    locks: bool,
}

impl AppSession {
    async fn new(mut sql: PgConnection) -> Result<Self, Error> {
        let (process, locks) = sqlx::query_as(SESSION).persistent(false).fetch_one(&mut sql).await.map_err(classify)?;
        Ok(Self { sql, process, migrations: None, locks })
    }

    /// The transaction that has begun finds the app with so many migrations: plans of before are thrown away.
    pub(super) async fn migrated(&mut self, migrations: i64) -> Result<(), sqlx::Error> {
        if self.migrations.replace(migrations).is_some_and(|before| before != migrations) {
            self.sql.clear_cached_statements().await?;
        }
        Ok(())
    }

    /// As new. What a guest has planned may stay if all went well: its texts are the app's, and the app is the login's. What
    /// the host itself relies on is never kept by name (see [`super::acknowledge::entering`]).
    async fn clean(&mut self, committed: bool) -> Result<(), sqlx::Error> {
        if committed {
            let reset = if self.locks { RESET_LOCKS } else { RESET };
            return sqlx::raw_sql(reset).execute(&mut self.sql).await.map(drop);
        }
        // The driver's own statements go first: DISCARD takes them away under it.
        self.sql.clear_cached_statements().await?;
        self.sql.execute("DISCARD ALL").await.map(drop)
    }
}
