//! Sessions for guests: a few per app, each of that app's login (`access.rs`) in that app's database.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sqlx::mysql::{MySqlConnectOptions, MySqlConnection};
use sqlx::{AssertSqlSafe, Column, ConnectOptions, Connection, Executor, Row};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::access::Access;
use super::connection::Engine;
use super::server::{self, Server};
use super::{Error, classify, errors, roles, values};
use crate::store::Login;

const VERSION_APP: &str = include_str!("version_app.sql");
/// The session's number, and types that the driver has no name for.
const GREETING: &str = "SELECT CAST(CONNECTION_ID() AS SIGNED), CAST(0 AS DECIMAL(1, 0)), NULL";
/// What a guest can take that outlives a transaction. It can set nothing, and has no temporary tables.
const RESET: &str = "DO RELEASE_ALL_LOCKS()";

/// The app of what the host itself does for messages: it has no database, and works in the engine's.
const OURS: &str = "semel";
/// Statements that a session keeps prepared, more than a transaction has: to throw one away has no answer, and the driver lets
/// the system hold back what is said next until the server has acknowledged that, which takes 40 ms. A text that a guest says
/// is never one of the host's, and its types are sent each time.
const PREPARED: usize = 4096;
/// With more than these it begins anew, between two transactions.
const MANY: usize = 64;

/// Guests' sessions of this host at once.
pub(super) const SESSIONS: usize = 32;
/// How long a new one may take.
const CONNECT: Duration = Duration::from_secs(10);
/// How long one that was used before may take to give a sign of life, or to be as new.
const SIGN_OF_LIFE: Duration = Duration::from_secs(2);

/// Whose session a guest has.
#[derive(Debug, Clone)]
pub(super) struct App {
    pub(super) name: String,
    /// None: the engine's.
    login: Option<Login>,
}

pub(super) struct Guests {
    options: MySqlConnectOptions,
    server: Server,
    access: Arc<Access>,
    idle: Mutex<HashMap<String, Vec<Seat>>>,
    apps: Mutex<HashMap<(String, i64), App>>,
    room: Arc<Semaphore>,
}

/// A session of an app's login.
pub(super) struct Seat {
    pub(super) connection: MySqlConnection,
    /// Its number at the server.
    pub(super) process: u64,
}

impl Guests {
    pub(super) fn new(options: MySqlConnectOptions, server: Server, access: Arc<Access>) -> Result<Self, Error> {
        let room = Arc::new(Semaphore::new(SESSIONS));
        // What guests say is theirs, and could fill a log.
        let options = options.disable_statement_logging().statement_cache_capacity(PREPARED);
        Ok(Self { options, server, access, idle: Mutex::default(), apps: Mutex::default(), room })
    }

    /// The engine's database, as a quoted name.
    pub(super) fn engine_database(&self) -> String {
        roles::identifier(&self.access.database)
    }

    /// See [`Server::idle_transaction`].
    pub(super) fn idle_transaction(&self, longest: Duration) -> String {
        self.server.idle_transaction(longest)
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

    /// A session of an app, as new, that gave a sign of life; and a place among those that there may be.
    pub(super) async fn begin(&self, engine: &Engine, app: &App) -> Result<(Seat, OwnedSemaphorePermit), Error> {
        let room = Arc::clone(&self.room).acquire_owned().await;
        let room = room.map_err(|_| Error::Unavailable("the store is closed".into()))?;
        while let Some(mut idle) = self.pop(app) {
            if matches!(timeout(SIGN_OF_LIFE, idle.connection.ping()).await, Ok(Ok(()))) {
                return Ok((idle, room));
            }
        }
        match self.connect(&app.name, app.login.as_ref()).await {
            Err(Error::Refused(why)) if app.login.is_some() => {
                // It may be gone, or its password another one: of a database of before, or on another server.
                tracing::warn!(app = app.name, why, "the app's login is refused; it is made anew");
                self.access.prepare(engine, &app.name).await?;
                Ok((self.connect(&app.name, app.login.as_ref()).await?, room))
            }
            done => Ok((done?, room)),
        }
    }

    /// The name of the database of an app.
    pub(super) fn database(&self, app: &App) -> String {
        self.access.names(&app.name).login
    }

    /// A new session in the database of an app.
    pub(super) async fn connect(&self, app: &str, login: Option<&Login>) -> Result<Seat, Error> {
        let mut options = self.options.clone();
        if app != OURS {
            options = options.database(&self.access.names(app).login);
        }
        if let Some(login) = login {
            options = options.username(&login.name).password(&login.password);
        }
        let settings = format!("{}; {}", server::SESSION, self.server.of_guests());
        let opened = timeout(CONNECT, async {
            let mut connection = options.connect().await.map_err(errors::at_login)?;
            sqlx::raw_sql(AssertSqlSafe(settings)).execute(&mut connection).await.map_err(classify)?;
            let row = sqlx::query(GREETING).fetch_one(&mut connection).await.map_err(classify)?;
            values::learn(row.column(1).type_info(), row.column(2).type_info());
            let process: i64 = row.try_get(0).map_err(classify)?;
            Ok(Seat { connection, process: process.unsigned_abs() })
        });
        opened.await.map_err(|_| Error::Unavailable("a session takes too long to open".into()))?
    }

    fn pop(&self, app: &App) -> Option<Seat> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).get_mut(&app.name).and_then(Vec::pop)
    }

    /// Takes a session back after its transaction has ended well. It is closed if it does not become as new.
    pub(super) async fn give(&self, app: &App, mut seat: Seat) {
        let reset = async {
            if seat.connection.cached_statements_size() > MANY {
                seat.connection.clear_cached_statements().await?;
            }
            seat.connection.execute(RESET).await
        };
        if matches!(timeout(SIGN_OF_LIFE, reset).await, Ok(Ok(_))) {
            self.idle.lock().unwrap_or_else(PoisonError::into_inner).entry(app.name.clone()).or_default().push(seat);
        }
    }
}
