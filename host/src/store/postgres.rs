//! Postgres: one database holds the queue and the apps' tables; any number of hosts pull from it.
//!
//! The engine's own operations run in sessions of a pool (`connection.rs`), guests' transactions in sessions of their app's
//! login (`guests.rs`, `session.rs`), which reach the engine's tables only through the functions of the schema `semel_api`.
//! What each transaction does, in which order and under which locks, stands at the top of
//! `migrations/postgres/0001_engine.sql`.

use std::sync::Arc;
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::{ConnectOptions, Connection};

use super::{Error, Held, Logins};

mod accept;
mod access;
mod acknowledge;
mod api;
mod catalog;
mod connection;
mod cron;
mod encryption;
mod errors;
mod gate;
mod group;
mod guest;
mod guest_sql;
mod guests;
mod health;
mod ledger;
mod line;
mod migrate;
mod migrate_app;
mod queue;
mod records;
mod recover;
mod rehearsal;
mod roles;
mod running;
mod schema;
mod session;
mod steering;
mod values;
mod wake;

use access::Access;
use connection::Engine;
use errors::classify;
use guests::Guests;
pub(super) use migrate::migrate;
use running::Running;
use wake::Wake;

const HELD: &str = include_str!("postgres/held.sql");

const ENCODING: &str = "SELECT current_setting('server_encoding')";

/// Sessions for what people ask, and one that listens.
const READING_SESSIONS: u32 = 4;
/// How long what people ask waits for a session.
const WAIT: Duration = Duration::from_secs(5);

pub(super) struct Postgres {
    engine: Engine,
    readers: PgPool,
    access: Arc<Access>,
    guests: Arc<Guests>,
    running: Arc<Running>,
    wake: Wake,
    promoted: queue::Promoted,
    secret: [u8; 32],
}

impl Postgres {
    pub(super) async fn open(url: &str, logins: Logins) -> Result<Self, Error> {
        let options = options(url)?;
        reach(&options).await?;
        let engine = Engine::new(engine_options(options.clone()));
        let secret = schema::prepare(&engine).await?;
        let readers = pool(READING_SESSIONS, options.clone());
        let access = Arc::new(Access::new(&engine, secret, logins).await?);
        access.mend(&engine).await?;
        let guests = Arc::new(Guests::new(options, Arc::clone(&access))?);
        let wake = Wake::start(engine.clone(), readers.clone());
        let store = Self {
            engine,
            readers,
            access,
            guests,
            running: Arc::default(),
            wake,
            promoted: queue::Promoted::default(),
            secret,
        };
        store.say_what_is_open().await?;
        Ok(store)
    }
}

/// Says why there is no connection: a pool would only say that it waited.
async fn reach(options: &PgConnectOptions) -> Result<(), Error> {
    let late = |_| errors::at_open(options, sqlx::Error::Io(std::io::ErrorKind::TimedOut.into()));
    let connected = tokio::time::timeout(WAIT, options.connect()).await.map_err(late)?;
    let mut connection = connected.map_err(|error| errors::at_open(options, error))?;
    let encoding: String = sqlx::query_scalar(ENCODING).fetch_one(&mut connection).await.map_err(classify)?;
    if encoding != "UTF8" {
        return Err(Error::Refused(format!(
            "the database is in {encoding}, and must be in UTF8: CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0"
        )));
    }
    let _ = connection.close().await; // It has done its part.
    Ok(())
}

fn options(url: &str) -> Result<PgConnectOptions, Error> {
    // Not the driver's words: they may hold the password.
    let refused =
        |_| Error::Refused("the database's URL is not understood; write postgres://USER:PASSWORD@HOST/NAME".into());
    let options: PgConnectOptions = url.parse().map_err(refused)?;
    Ok(options.application_name("semel").options([
        ("default_transaction_isolation", "read committed"),
        ("tcp_keepalives_idle", "10"),
        ("tcp_keepalives_interval", "5"),
        ("tcp_keepalives_count", "3"),
        ("client_min_messages", "error"),
    ]))
}

/// The settings that the contract in 0001_engine.sql asks for.
fn engine_options(options: PgConnectOptions) -> PgConnectOptions {
    options.options([
        ("synchronous_commit", "on"),
        ("enable_seqscan", "off"),
        ("jit", "off"),
        ("enable_hashjoin", "off"),
        ("enable_mergejoin", "off"),
        ("plan_cache_mode", "force_custom_plan"),
        ("lock_timeout", "5s"),
        ("idle_in_transaction_session_timeout", "5s"),
    ])
}

fn pool(sessions: u32, options: PgConnectOptions) -> PgPool {
    PgPoolOptions::new().max_connections(sessions).acquire_timeout(WAIT).connect_lazy_with(options)
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
