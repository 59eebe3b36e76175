//! MariaDB and MySQL: one database holds the queue, one for each app its tables; any number of hosts pull from it.
//!
//! The engine's own operations run in sessions of a pool (`connection.rs`), guests' transactions in sessions of their app's
//! login (`guests.rs`, `session.rs`), which reach the engine's tables only through its procedures. What each transaction does,
//! in which order and under which locks, stands at the top of `migrations/mysql/0001_engine.sql`. One protocol and one dialect
//! for both servers: only what they share is used, and where they differ, [`Server`] knows.

use std::sync::Arc;
use std::time::Duration;

use sqlx::mysql::{MySqlConnectOptions, MySqlPool, MySqlPoolOptions};
use sqlx::{ConnectOptions, Connection};

use super::{Error, Held, Logins};

mod accept;
mod access;
mod acknowledge;
mod api;
mod catalog;
mod claim;
mod connection;
mod cron;
mod ended;
mod errors;
mod gate;
mod group;
mod guest;
mod guest_sql;
mod guests;
mod health;
mod ledger;
mod list;
mod migrate;
mod migrate_app;
mod queue;
mod records;
mod recover;
mod rehearsal;
mod roles;
mod running;
mod scanner;
mod schema;
mod server;
mod session;
mod statements;
mod steering;
mod values;
mod wake;
mod walls;

use access::Access;
use connection::Engine;
use errors::classify;
use guests::Guests;
pub(super) use migrate::migrate;
use running::Running;
use server::Server;
use wake::Wake;

const HELD: &str = include_str!("mysql/held.sql");

/// Sessions for what people ask.
const READING_SESSIONS: u32 = 4;
/// Statements that a session of the engine keeps prepared: all of them (see `guests.rs`).
const PREPARED: usize = 400;
/// How long what people ask waits for a session.
const WAIT: Duration = Duration::from_secs(5);

pub(super) struct Mysql {
    engine: Engine,
    readers: MySqlPool,
    server: Server,
    access: Arc<Access>,
    guests: Arc<Guests>,
    running: Arc<Running>,
    wake: Wake,
    promoted: claim::Promoted,
    secret: [u8; 32],
}

impl Mysql {
    pub(super) async fn open(url: &str, logins: Logins) -> Result<Self, Error> {
        let options = options(url)?;
        let server = reach(&options).await?;
        let engine = Engine::new(options.clone().statement_cache_capacity(PREPARED), &server);
        let secret = schema::prepare(&engine).await?;
        let readers = pool(READING_SESSIONS, options.clone());
        let access = Arc::new(Access::new(&engine, options.clone(), &server, secret, logins).await?);
        access.mend(&engine).await?;
        let guests = Arc::new(Guests::new(options, server.clone(), Arc::clone(&access))?);
        let store = Self {
            engine,
            readers,
            server,
            access,
            guests,
            running: Arc::default(),
            wake: Wake::default(),
            promoted: claim::Promoted::default(),
            secret,
        };
        store.say_what_is_open().await?;
        Ok(store)
    }
}

/// Says why there is no connection: a pool would only say that it waited.
async fn reach(options: &MySqlConnectOptions) -> Result<Server, Error> {
    let late = |_| errors::at_open(options, sqlx::Error::Io(std::io::ErrorKind::TimedOut.into()));
    let connected = tokio::time::timeout(WAIT, options.connect()).await.map_err(late)?;
    let mut connection = connected.map_err(|error| errors::at_open(options, error))?;
    let server = Server::ask(&mut connection).await?;
    let _ = connection.close().await; // It has done its part.
    Ok(server)
}

fn options(url: &str) -> Result<MySqlConnectOptions, Error> {
    // Not the driver's words: they may hold the password.
    let refused =
        || Error::Refused("the database's URL is not understood; write mysql://USER:PASSWORD@HOST/NAME".into());
    let options: MySqlConnectOptions = url.parse().map_err(|_| refused())?;
    match options.get_database() {
        Some(name) if !name.is_empty() => Ok(options.collation("utf8mb4_bin")),
        _ => Err(refused()),
    }
}

fn pool(sessions: u32, options: MySqlConnectOptions) -> MySqlPool {
    MySqlPoolOptions::new().max_connections(sessions).acquire_timeout(WAIT).connect_lazy_with(options)
}

/// See [`super::held`].
pub(super) async fn held(url: &str) -> anyhow::Result<Vec<Held>> {
    let mut connection = options(url)?.connect().await?;
    let rows: Vec<(String, i64, String)> = sqlx::query_as(HELD).fetch_all(&mut connection).await?;
    connection.close().await?;
    Ok(rows.into_iter().map(|(message, attempt, host)| Held { message, attempt: unsigned(attempt), host }).collect())
}

/// A count or limit as the database has it.
fn number(unsigned: u32) -> i64 {
    i64::from(unsigned)
}

/// A count as it comes from the database.
fn unsigned(number: i64) -> u32 {
    u32::try_from(number).unwrap_or(0)
}
