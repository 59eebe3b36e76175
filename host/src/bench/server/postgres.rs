//! The floors on Postgres: the best plain loop over so many connections.
//!
//! Statements are prepared once per connection; claims pass over rows that others hold (`SKIP LOCKED`) and delete what they
//! take, so the queue stays short; settings are the server's. A message is `DELETE … RETURNING` of the oldest row, an UPDATE of its
//! counter, a SELECT of what it shows now, `COMMIT AND CHAIN`, which begins the next transaction as well: four round trips. Tables of the floors are in a schema of
//! their own in the database that Semel has, and empty each time.

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use async_trait::async_trait;
use reqwest::Url;
use serde_json::{Map, Value as Json, json};
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, Executor as _};
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::bench::ground::{Ground, Inserted, Work};
use crate::bench::load::{self, bodies};
use crate::bench::rate;

const FLOOR: &str = "
    CREATE SCHEMA floor;
    CREATE TABLE floor.queue (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, body text NOT NULL);
    CREATE TABLE floor.counters (id varchar(100) PRIMARY KEY, n bigint NOT NULL)";
const EMPTY: &str = "TRUNCATE floor.queue, floor.counters";
const WAITING: &str = "INSERT INTO floor.queue (body) SELECT * FROM unnest($1::text[])";
const AT_ZERO: &str = "INSERT INTO floor.counters SELECT 'counter-' || n, 0 FROM generate_series(0, $1 - 1) n";
const SETTLE_FLOOR: &str = "VACUUM (ANALYZE) floor.queue, floor.counters";
const CLAIM: &str = "DELETE FROM floor.queue WHERE id = (SELECT id FROM floor.queue ORDER BY id LIMIT 1
    FOR UPDATE SKIP LOCKED) RETURNING body";
const COUNT: &str = "UPDATE floor.counters SET n = n + 1 WHERE id = $1";
const READ: &str = "SELECT n FROM floor.counters WHERE id = $1";
const INSERT: &str = "INSERT INTO floor.queue (body) VALUES ($1)";

const COUNTERS: &str = "SELECT id::text, n FROM app.counters";
const FLOOR_COUNTERS: &str = "SELECT id::text, n FROM floor.counters";
const SUM: &str = "SELECT coalesce(sum(n), 0)::bigint FROM app.counters";
const LOG: &str = "SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::bigint";
const FILL: &str = include_str!("postgres/fill.sql");
const PASS: &str = include_str!("postgres/pass.sql");
const SETTLE: &str = "VACUUM (ANALYZE) semel.messages, semel.queue, semel.history, semel.attempts";
const TAKE_OUT: &str = "DELETE FROM semel.queue WHERE state = 'running'";
const ROLES: &str = "SELECT unnest(array_remove(array[login, owner], NULL)) FROM semel.apps";

const SETTINGS: [&str; 9] = [
    "server_version",
    "fsync",
    "synchronous_commit",
    "full_page_writes",
    "wal_sync_method",
    "shared_buffers",
    "max_wal_size",
    "max_connections",
    "autovacuum",
];

/// Messages per second of the same job on two cores, measured apart, on another run, by performance.md; with the effect in the
/// transaction of the acknowledgement.
const OTHERS: [(&str, u64); 6] = [
    ("pg-boss, batch", 5_540),
    ("sqlxmq", 2_270),
    ("River, Tx", 1_460),
    ("pg-boss", 1_240),
    ("underway", 560),
    ("DBOS", 320),
];

/// A database of our own on somebody's server.
pub(super) struct Server {
    given: PgConnectOptions,
    own: PgConnectOptions,
    name: String,
    url: String,
    session: PgConnection,
}

impl Server {
    /// Makes the database.
    pub(super) async fn make(url: &str) -> anyhow::Result<Self> {
        // Not the parsers' words: the URL may hold a password.
        let given: Option<PgConnectOptions> = url.parse().ok();
        let given = given.context("the database's URL is not understood; write postgres://USER:PASSWORD@HOST/NAME")?;
        let given = given.disable_statement_logging();
        let name = format!("semel_bench_{}", hex::encode(rand::random::<[u8; 4]>()));
        let mut url = Url::parse(url).ok().context("the database's URL is not understood")?;
        url.set_path(&name);
        let mut session = given.connect().await.context("cannot reach the database's server")?;
        let make = format!("CREATE DATABASE {name} ENCODING 'UTF8' TEMPLATE template0");
        if let Err(error) = session.execute(AssertSqlSafe(make)).await {
            let code = error.as_database_error().and_then(|error| error.code().map(|code| code.into_owned()));
            match code.as_deref() {
                Some("42501") => bail!(
                    "the bench makes a database of its own, and this login may not: ALTER ROLE … CREATEDB, or give a \
                     login that may"
                ),
                _ => return Err(error).context("cannot make a database for the bench"),
            }
        }
        let own = given.clone().database(&name);
        let session = own.connect().await.context("cannot reach the database that was made")?;
        let mut server = Self { given, own, name, url: url.into(), session };
        if let Err(error) = server.session.execute(FLOOR).await {
            server.remove().await?;
            return Err(error).context("cannot make the tables of the floors");
        }
        Ok(server)
    }

    async fn connect(&self, connections: u32) -> anyhow::Result<Vec<PgConnection>> {
        let mut open = Vec::new();
        for _ in 0..connections {
            open.push(self.own.connect().await.context("the server takes no further connection")?);
        }
        Ok(open)
    }

    async fn prepare_floor(&mut self, picks: &[u32]) -> anyhow::Result<()> {
        self.session.execute(EMPTY).await?;
        sqlx::query(WAITING).bind(bodies(picks)).execute(&mut self.session).await?;
        sqlx::query(AT_ZERO).bind(i64::from(load::counters(picks))).execute(&mut self.session).await?;
        self.session.execute(SETTLE_FLOOR).await?;
        Ok(())
    }
}

/// Works off what waits, so many messages per commit, and says how many there were.
async fn drained(mut session: PgConnection, together: u32) -> anyhow::Result<u64> {
    let mut count = 0;
    session.execute("BEGIN").await?;
    loop {
        let before = count;
        while count - before < u64::from(together) {
            let body: Option<String> = sqlx::query_scalar(CLAIM).fetch_optional(&mut session).await?;
            let Some(body) = body else { break };
            let counted = sqlx::query(COUNT).bind(&body).execute(&mut session).await?;
            ensure!(counted.rows_affected() == 1, "there is no counter {body}");
            let _shown: i64 = sqlx::query_scalar(READ).bind(&body).fetch_one(&mut session).await?;
            count += 1;
        }
        if count == before {
            session.close().await?;
            return Ok(count);
        }
        session.execute("COMMIT AND CHAIN").await?;
    }
}

/// Puts so many messages in, and says how long each took.
async fn inserted(mut session: PgConnection, count: u32) -> anyhow::Result<Vec<Duration>> {
    let mut times = Vec::with_capacity(count as usize);
    for number in 0..count {
        let began = Instant::now();
        sqlx::query(INSERT).bind(load::name(number % 1_000)).execute(&mut session).await?;
        times.push(began.elapsed());
    }
    session.close().await?;
    Ok(times)
}

#[async_trait]
impl Ground for Server {
    fn url(&self) -> String {
        self.url.clone()
    }

    fn connections(&self) -> u32 {
        32
    }

    fn others(&self) -> &'static [(&'static str, u64)] {
        &OTHERS
    }

    async fn facts(&mut self) -> anyhow::Result<Json> {
        let mut settings = Map::new();
        for name in SETTINGS {
            let value: String =
                sqlx::query_scalar("SELECT current_setting($1)").bind(name).fetch_one(&mut self.session).await?;
            settings.insert(name.to_owned(), value.into());
        }
        let version = settings.remove("server_version");
        let waits = settings["fsync"] == "on" && settings["synchronous_commit"] != "off";
        Ok(json!({ "kind": "postgres", "version": version, "settings": settings, "waits_for_the_disk": waits }))
    }

    async fn drain(&mut self, work: &Work<'_>) -> anyhow::Result<f64> {
        self.prepare_floor(work.picks).await?;
        let sessions = self.connect(work.connections).await?;
        let began = Instant::now();
        let mut loops: JoinSet<_> = sessions.into_iter().map(|session| drained(session, work.together)).collect();
        let mut count = 0;
        while let Some(done) = loops.join_next().await {
            count += done??;
        }
        let took = began.elapsed();
        ensure!(count == work.picks.len() as u64, "the floor has worked off {count} messages of {}", work.picks.len());
        let found = sqlx::query_as(FLOOR_COUNTERS).fetch_all(&mut self.session).await?;
        load::check_floor(load::counters(work.picks), work.picks, found)?;
        rate(count, took.as_secs_f64())
    }

    async fn insert(&mut self, count: u32, connections: u32) -> anyhow::Result<Inserted> {
        self.prepare_floor(&[]).await?;
        let sessions = self.connect(connections).await?;
        let share = count.div_ceil(connections);
        let began = Instant::now();
        let mut loops: JoinSet<_> = sessions.into_iter().map(|session| inserted(session, share)).collect();
        let mut times = Vec::new();
        while let Some(done) = loops.join_next().await {
            times.extend(done??);
        }
        let took = began.elapsed();
        let found: i64 = sqlx::query_scalar("SELECT count(*) FROM floor.queue").fetch_one(&mut self.session).await?;
        ensure!(
            found == times.len() as i64,
            "the floor has put {found} messages into its queue instead of {}",
            times.len()
        );
        times.sort_unstable();
        let median = times.get(times.len() / 2).copied().unwrap_or_default();
        Ok(Inserted { rate: rate(times.len() as u64, took.as_secs_f64())?, median })
    }

    async fn fill(&mut self, function: &str, bodies: &[String]) -> anyhow::Result<()> {
        let ids: Vec<String> = bodies.iter().map(|_| Uuid::now_v7().simple().to_string()).collect();
        let bodies: Vec<&[u8]> = bodies.iter().map(String::as_bytes).collect();
        sqlx::query(FILL).bind(ids).bind(function).bind(bodies).execute(&mut self.session).await?;
        Ok(())
    }

    async fn settle(&mut self) -> anyhow::Result<()> {
        self.session.execute(SETTLE).await?;
        Ok(())
    }

    async fn counted(&mut self) -> anyhow::Result<i64> {
        Ok(sqlx::query_scalar(SUM).fetch_one(&mut self.session).await?)
    }

    async fn counters(&mut self) -> anyhow::Result<Vec<(String, i64)>> {
        Ok(sqlx::query_as(COUNTERS).fetch_all(&mut self.session).await?)
    }

    async fn log_bytes(&mut self) -> anyhow::Result<Option<u64>> {
        let bytes: i64 = sqlx::query_scalar(LOG).fetch_one(&mut self.session).await?;
        Ok(u64::try_from(bytes).ok())
    }

    async fn pass(&mut self, function: &str, count: u32) -> anyhow::Result<()> {
        sqlx::query(PASS).bind(function).bind(i64::from(count)).execute(&mut self.session).await?;
        Ok(())
    }

    async fn take_out_claimed(&mut self) -> anyhow::Result<()> {
        self.session.execute(TAKE_OUT).await?;
        Ok(())
    }

    async fn remove(&mut self) -> anyhow::Result<()> {
        // There are none if no host was started.
        let roles: Vec<String> = sqlx::query_scalar(ROLES).fetch_all(&mut self.session).await.unwrap_or_default();
        let mut session = self.given.connect().await.context("cannot reach the database's server")?;
        session.execute(AssertSqlSafe(format!("DROP DATABASE {} WITH (FORCE)", self.name))).await?;
        // Roles are the server's; those that Semel made for this database carry its name.
        for role in roles.into_iter().filter(|role| role.contains(&self.name)) {
            session.execute(AssertSqlSafe(format!("DROP ROLE \"{role}\""))).await?;
        }
        session.close().await?;
        Ok(())
    }
}
