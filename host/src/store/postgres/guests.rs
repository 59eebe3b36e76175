//! Sessions for guests: a few per app, each of that app's login (`access.rs`).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::{BoxFuture, try_join3};
use sqlx::Row;
use sqlx::postgres::PgConnectOptions;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::access::Access;
use super::acknowledge::Entry;
use super::connection::Engine;
use super::guest_sql::Plans;
use super::line::{self, Line, SHORT, Server, Shared};
use super::{Error, classify, errors};
use crate::store::Login;

const VERSION_APP: &str = include_str!("version_app.sql");
const SESSION: &str = include_str!("session.sql");
const RESET: &str = include_str!("reset.sql");
const RESET_LOCKS: &str = include_str!("reset_locks.sql");

/// Guests' sessions of this host at once.
pub(super) const SESSIONS: usize = 32;
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
    server: Server,
    access: Arc<Access>,
    idle: Mutex<HashMap<String, Vec<AppSession>>>,
    apps: Mutex<HashMap<(String, i64), App>>,
    room: Arc<Semaphore>,
}

/// What the server said when a transaction entered what it is for.
#[derive(Clone, Copy)]
pub(super) struct Entered {
    /// The id of the transaction.
    pub(super) transaction: i64,
    /// How many migrations the app has had.
    migrations: i64,
}

impl Guests {
    pub(super) fn new(options: PgConnectOptions, access: Arc<Access>) -> Result<Self, Error> {
        let (server, room) = (Server::new(options)?, Arc::new(Semaphore::new(SESSIONS)));
        Ok(Self { server, access, idle: Mutex::default(), apps: Mutex::default(), room })
    }

    pub(super) fn options(&self) -> &PgConnectOptions {
        &self.server.options
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

    /// A session of an app, as new, in which the transaction has begun and has entered what it is for.
    pub(super) async fn begin(
        &self,
        engine: &Engine,
        app: &App,
        begin: &str,
        entry: &Entry,
    ) -> Result<(AppSession, Result<Entered, Error>, OwnedSemaphorePermit), Error> {
        let room = Arc::clone(&self.room).acquire_owned().await;
        let room = room.map_err(|_| Error::Unavailable("the store is closed".into()))?;
        while let Some(mut idle) = self.pop(app) {
            // What is said first on it shows whether it still lives.
            let begun = idle.begin(begin, entry, SIGN_OF_LIFE).await;
            if matches!(begun, Ok(_) | Err(Error::Fenced)) {
                return Ok((idle, begun, room));
            }
        }
        let mut fresh = AppSession::new(self.fresh(engine, app).await?).await?;
        let begun = fresh.begin(begin, entry, SHORT).await;
        Ok((fresh, begun, room))
    }

    async fn fresh(&self, engine: &Engine, app: &App) -> Result<Line, Error> {
        match self.server.line(engine, &app.name, app.login.as_ref()).await {
            Err(Error::Refused(why)) => {
                // Its password may be another one: of a database of before, or because a function of the app changed it.
                tracing::warn!(app = app.name, why, "the app's login is refused; it is made anew");
                self.access.prepare(engine, &app.name).await?;
                self.server.line(engine, &app.name, app.login.as_ref()).await
            }
            done => done,
        }
    }

    fn pop(&self, app: &App) -> Option<AppSession> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).get_mut(&app.name).and_then(Vec::pop)
    }

    /// Takes a session back after its transaction has ended.
    pub(super) fn give(&self, app: String, mut session: AppSession, committed: bool) {
        session.clean(committed);
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).entry(app).or_default().push(session);
    }
}

/// A session of an app's login.
pub(super) struct AppSession {
    pub(super) line: Shared,
    pub(super) plans: Plans,
    /// How many migrations the app had had when the plans were made that this session keeps.
    migrations: Option<i64>,
    /// Whether the login may take locks that outlive a transaction.
    locks: bool,
    /// What was said when it came back, and is not answered yet.
    cleaning: Option<BoxFuture<'static, Result<(), tokio_postgres::Error>>>,
}

impl AppSession {
    async fn new(mut line: Line) -> Result<Self, Error> {
        let late = |_| Error::Unavailable("a session does not answer".into());
        let asked = timeout(SHORT, line.client.query_typed_one(SESSION, &[])).await.map_err(late)?;
        let row = asked.map_err(|error| errors::classify_guests(&error))?;
        line.process = row.try_get(0).map_err(|error| errors::classify_guests(&error))?;
        let locks = row.try_get(1).map_err(|error| errors::classify_guests(&error))?;
        Ok(Self { line: Arc::new(line), plans: Plans::default(), migrations: None, locks, cleaning: None })
    }

    /// Begins a transaction, in this time at most, and enters what it is for, in one go with what was said when the session came
    /// back. Fenced, with
    /// the transaction still to be ended, if what it is for does not hold; after any other error the session is of no use.
    async fn begin(&mut self, begin: &str, entry: &Entry, longest: Duration) -> Result<Entered, Error> {
        let client = &self.line.client;
        let cleaned = async {
            match self.cleaning.take() {
                Some(cleaning) => cleaning.await,
                None => Ok(()),
            }
        };
        let (cleaned, begun, entered) = (
            in_time(longest, cleaned),
            in_time(longest, client.batch_execute(begin)),
            in_time(SHORT, entry.enter(client)),
        );
        let ((), (), row) = try_join3(cleaned, begun, entered).await?;
        let number = |place| row.try_get(place).map_err(|error| errors::classify_guests(&error));
        let entered = Entered { transaction: number(0)?, migrations: number(2)? };
        if self.migrations.replace(entered.migrations).is_some_and(|before| before != entered.migrations) {
            self.forget();
        }
        Ok(entered)
    }

    /// As new, as soon as the server has done it. What a guest has planned may stay if all went well: its texts are the app's, and
    /// the app is the login's. What the host itself relies on is never kept by name (see [`super::acknowledge::Entry`]).
    fn clean(&mut self, committed: bool) {
        if !committed {
            self.forget();
        }
        let (line, reset) = (Arc::clone(&self.line), if self.locks { RESET_LOCKS } else { RESET });
        self.cleaning = Some(line::sent(async move { line.client.batch_execute(reset).await }));
    }

    /// Throws plans away, and what is known of types.
    fn forget(&mut self) {
        self.plans.clear();
        self.line.client.clear_type_cache();
    }
}

async fn in_time<T>(
    longest: Duration,
    work: impl Future<Output = Result<T, tokio_postgres::Error>>,
) -> Result<T, Error> {
    let late = |_| Error::Unavailable("a session does not answer".into());
    timeout(longest, work).await.map_err(late)?.map_err(|error| match error.code().map(|code| code.code()) {
        Some("SM001") => Error::Fenced,
        _ => errors::classify_guests(&error),
    })
}
