//! The floors on MariaDB and MySQL: the best plain loop over so many connections.
//!
//! Statements are prepared once per connection; claims pass over rows that others hold (`SKIP LOCKED`), and what was taken is
//! deleted, so the queue stays short; settings are the server's, but for the isolation (READ COMMITTED, as Semel has it: claims of
//! the default one lock the gaps between rows). A message is a SELECT of the oldest row, its DELETE, an UPDATE of its counter, a
//! SELECT of what it shows now, `COMMIT AND CHAIN`, which begins the next transaction as well: five round trips. Where nobody is
//! beside it, MariaDB's `DELETE … RETURNING` makes four of them. Tables of the floors are in the database that Semel has, and empty
//! each time.

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use async_trait::async_trait;
use reqwest::Url;
use serde_json::{Map, Value as Json, json};
use sqlx::mysql::{MySqlConnectOptions, MySqlConnection};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, Executor as _};
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::bench::ground::{Ground, Inserted, Work};
use crate::bench::load::{self, bodies};
use crate::bench::rate;

const FLOOR: [&str; 2] = [
    "CREATE TABLE floor_queue (id BIGINT PRIMARY KEY AUTO_INCREMENT, body VARCHAR(100) NOT NULL) ENGINE = InnoDB",
    "CREATE TABLE floor_counters (id VARCHAR(100) PRIMARY KEY, n BIGINT NOT NULL) ENGINE = InnoDB",
];
const EMPTY: [&str; 2] = ["TRUNCATE floor_queue", "TRUNCATE floor_counters"];
const WAITING: &str = "INSERT INTO floor_queue (body)
    SELECT body FROM JSON_TABLE(?, '$[*]' COLUMNS (place FOR ORDINALITY, body VARCHAR(100) PATH '$')) AS t ORDER BY place";
const AT_ZERO: &str = "INSERT INTO floor_counters
    SELECT id, 0 FROM JSON_TABLE(?, '$[*]' COLUMNS (id VARCHAR(100) PATH '$')) AS t";
const SETTLE_FLOOR: &str = "ANALYZE TABLE floor_queue, floor_counters";
const READ_COMMITTED: &str = "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED";
const OLDEST: &str = "SELECT id, body FROM floor_queue ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED";
const TAKE: &str = "DELETE FROM floor_queue WHERE id = ?";
const TAKE_OLDEST: &str = "DELETE FROM floor_queue ORDER BY id LIMIT 1 RETURNING id, body";
const COUNT: &str = "UPDATE floor_counters SET n = n + 1 WHERE id = ?";
const READ: &str = "SELECT n FROM floor_counters WHERE id = ?";
const INSERT: &str = "INSERT INTO floor_queue (body) VALUES (?)";

const FLOOR_COUNTERS: &str = "SELECT id, n FROM floor_counters";
const FILL: &str = include_str!("mysql/fill.sql");
const FILL_QUEUE: &str = include_str!("mysql/fill_queue.sql");
const PASS_MESSAGES: &str = include_str!("mysql/pass_messages.sql");
const PASS_HISTORY: &str = include_str!("mysql/pass_history.sql");
const PASS_ATTEMPTS: &str = include_str!("mysql/pass_attempts.sql");
const LAST: &str = "SELECT COALESCE(MAX(seq), 0) FROM messages";
const SETTLE: &str = "ANALYZE TABLE messages, queue, history, attempts";
const TAKE_OUT: &str = "DELETE FROM queue WHERE state = 'running'";
const LOG: &str = "SHOW GLOBAL STATUS LIKE 'Innodb_os_log_written'";
const LOGINS: &str = "SELECT login, owner FROM apps";
const DATABASES: &str = "SELECT schema_name AS name FROM information_schema.schemata WHERE LEFT(schema_name, ?) = ?";
const SETTINGS: &str = "SHOW GLOBAL VARIABLES WHERE variable_name IN ('innodb_flush_log_at_trx_commit', 'innodb_flush_method',
    'innodb_doublewrite', 'innodb_buffer_pool_size', 'innodb_log_file_size', 'innodb_redo_log_capacity', 'log_bin', 'sync_binlog',
    'max_connections')";

/// Messages per second of the same job, measured apart, on another machine, by performance.md: what Semel began as.
const OTHERS: [(&str, u64); 1] = [("the seed (Watermill on MySQL)", 154)];

/// A database of our own on somebody's server.
pub(in crate::bench) struct Server {
    given: MySqlConnectOptions,
    own: MySqlConnectOptions,
    name: String,
    url: String,
    is_mariadb: bool,
    session: MySqlConnection,
}

impl Server {
    /// Makes the database. Its name begins as that of the URL: a login that Semel can use may do that.
    pub(super) async fn make(url: &str) -> anyhow::Result<Self> {
        // Not the parsers' words: the URL may hold a password.
        let wrong = "the database's URL is not understood; write mysql://USER:PASSWORD@HOST/NAME";
        let given: MySqlConnectOptions = url.parse().ok().context(wrong)?;
        let given = given.disable_statement_logging();
        let mut url = Url::parse(url).ok().context(wrong)?;
        let beside = url.path().trim_start_matches('/').to_owned();
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        ensure!(
            !beside.is_empty() && beside.bytes().all(plain),
            "the bench takes names of letters, digits and _ alone"
        );
        let name = format!("{beside}_bench_{}", hex::encode(rand::random::<[u8; 4]>()));
        url.set_path(&name);
        let mut session = given.connect().await.context("cannot reach the database's server")?;
        if let Err(error) = session.execute(AssertSqlSafe(format!("CREATE DATABASE {name}"))).await {
            let code = error.as_database_error().and_then(|error| error.code().map(|code| code.into_owned()));
            match code.as_deref() {
                Some("42000") => bail!(
                    "the bench makes a database of its own, and this login may not: GRANT ALL PRIVILEGES ON `{beside}\\_%`.* \
                     TO … WITH GRANT OPTION, or give a login that may"
                ),
                _ => return Err(error).context("cannot make a database for the bench"),
            }
        }
        let own = given.clone().database(&name);
        let mut session = own.connect().await.context("cannot reach the database that was made")?;
        session.execute(READ_COMMITTED).await?;
        let version: String = sqlx::query_scalar("SELECT VERSION()").fetch_one(&mut session).await?;
        let is_mariadb = version.contains("MariaDB");
        let mut server = Self { given, own, name, url: url.into(), is_mariadb, session };
        for table in FLOOR {
            if let Err(error) = server.session.execute(table).await {
                server.remove().await?;
                return Err(error).context("cannot make the tables of the floors");
            }
        }
        Ok(server)
    }

    async fn connect(&self, connections: u32) -> anyhow::Result<Vec<MySqlConnection>> {
        let mut open = Vec::new();
        for _ in 0..connections {
            let mut session = self.own.connect().await.context("the server takes no further connection")?;
            session.execute(READ_COMMITTED).await?;
            open.push(session);
        }
        Ok(open)
    }

    async fn prepare_floor(&mut self, picks: &[u32]) -> anyhow::Result<()> {
        for table in EMPTY {
            self.session.execute(table).await?;
        }
        let counters: Vec<u32> = (0..load::counters(picks)).collect();
        for (sql, list) in [(WAITING, bodies(picks)), (AT_ZERO, bodies(&counters))] {
            sqlx::query(sql).bind(json!(list).to_string()).execute(&mut self.session).await?;
        }
        self.session.execute(SETTLE_FLOOR).await?;
        Ok(())
    }

    /// A table of the app's, as the engine's login sees it.
    fn in_app(&self, sql: &str) -> AssertSqlSafe<String> {
        AssertSqlSafe(sql.replace("APP", &format!("{}_app", self.name)))
    }

    async fn setting(&mut self, sql: &'static str) -> anyhow::Result<Vec<(String, String)>> {
        Ok(sqlx::query_as(sql).fetch_all(&mut self.session).await?)
    }
}

/// Works off what waits, so many messages per commit, and says how many there were.
async fn drained(mut session: MySqlConnection, together: u32, alone: bool) -> anyhow::Result<u64> {
    let mut count = 0;
    session.execute("BEGIN").await?;
    loop {
        let before = count;
        while count - before < u64::from(together) {
            let sql = if alone { TAKE_OLDEST } else { OLDEST };
            let found: Option<(i64, String)> = sqlx::query_as(sql).fetch_optional(&mut session).await?;
            let Some((id, body)) = found else { break };
            if !alone {
                sqlx::query(TAKE).bind(id).execute(&mut session).await?;
            }
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
async fn inserted(mut session: MySqlConnection, count: u32) -> anyhow::Result<Vec<Duration>> {
    let mut times = Vec::with_capacity(count as usize);
    for number in 0..count {
        let began = Instant::now();
        sqlx::query(INSERT).bind(load::name(number % 1_000)).execute(&mut session).await?;
        times.push(began.elapsed());
    }
    session.close().await?;
    Ok(times)
}

/// As the host writes times: microseconds since 1970.
fn now() -> i64 {
    jiff::Timestamp::now().as_microsecond()
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
        let settings = self.setting(SETTINGS).await?.into_iter().map(|(name, value)| (name, value.into()));
        let settings: Map<String, Json> = settings.collect();
        let version: String = sqlx::query_scalar("SELECT VERSION()").fetch_one(&mut self.session).await?;
        let is = |name: &str, value: &str| settings.get(name).is_some_and(|found| found == value);
        let waits = is("innodb_flush_log_at_trx_commit", "1")
            && !is("innodb_flush_method", "nosync")
            && (!is("log_bin", "ON") || is("sync_binlog", "1"));
        let kind = if self.is_mariadb { "mariadb" } else { "mysql" };
        Ok(json!({ "kind": kind, "version": version, "settings": settings, "waits_for_the_disk": waits }))
    }

    async fn drain(&mut self, work: &Work<'_>) -> anyhow::Result<f64> {
        self.prepare_floor(work.picks).await?;
        let sessions = self.connect(work.connections).await?;
        let alone = self.is_mariadb && work.connections == 1;
        let began = Instant::now();
        let mut loops: JoinSet<_> =
            sessions.into_iter().map(|session| drained(session, work.together, alone)).collect();
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
        let found: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM floor_queue").fetch_one(&mut self.session).await?;
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
        let list: Vec<_> = bodies.iter().map(|body| (Uuid::now_v7().simple().to_string(), body)).collect();
        let (list, topic) = (json!(list).to_string(), format!("fn/{function}"));
        let mut filling = self.session.begin().await?;
        let mark: i64 = sqlx::query_scalar(LAST).fetch_one(&mut *filling).await?;
        let fill = sqlx::query(FILL).bind(list).bind(function).bind(topic).bind(now());
        let messages = fill.execute(&mut *filling).await?.rows_affected();
        let places = sqlx::query(FILL_QUEUE).bind(mark).execute(&mut *filling).await?.rows_affected();
        // Nobody is accepted beside us: a function that is filled is paused, or its host is down.
        ensure!(messages == places, "{places} places in the queue for {messages} messages");
        Ok(filling.commit().await?)
    }

    async fn settle(&mut self) -> anyhow::Result<()> {
        self.session.execute(SETTLE).await?;
        Ok(())
    }

    async fn counted(&mut self) -> anyhow::Result<i64> {
        let sum = self.in_app("SELECT CAST(COALESCE(SUM(n), 0) AS SIGNED) FROM APP.counters");
        Ok(sqlx::query_scalar(sum).fetch_one(&mut self.session).await?)
    }

    async fn counters(&mut self) -> anyhow::Result<Vec<(String, i64)>> {
        Ok(sqlx::query_as(self.in_app("SELECT id, n FROM APP.counters")).fetch_all(&mut self.session).await?)
    }

    async fn log_bytes(&mut self) -> anyhow::Result<Option<u64>> {
        Ok(self.setting(LOG).await?.pop().and_then(|(_, bytes)| bytes.parse().ok()))
    }

    async fn pass(&mut self, function: &str, count: u32) -> anyhow::Result<()> {
        // MariaDB and MySQL have a limit each for how deep a recursion goes, by different names.
        let deep = if self.is_mariadb { "max_recursive_iterations" } else { "cte_max_recursion_depth" };
        self.session.execute(AssertSqlSafe(format!("SET SESSION {deep} = {count}"))).await?;
        let mut passing = self.session.begin().await?;
        let mark: i64 = sqlx::query_scalar(LAST).fetch_one(&mut *passing).await?;
        let messages = sqlx::query(PASS_MESSAGES).bind(i64::from(count)).bind(function).bind(format!("fn/{function}"));
        messages.bind(now()).execute(&mut *passing).await?;
        for sql in [PASS_HISTORY, PASS_ATTEMPTS] {
            sqlx::query(sql).bind(mark).execute(&mut *passing).await?;
        }
        Ok(passing.commit().await?)
    }

    async fn take_out_claimed(&mut self) -> anyhow::Result<()> {
        self.session.execute(TAKE_OUT).await?;
        Ok(())
    }

    async fn remove(&mut self) -> anyhow::Result<()> {
        // There are none if no host was started.
        let logins: Vec<(String, Option<String>)> =
            sqlx::query_as(LOGINS).fetch_all(&mut self.session).await.unwrap_or_default();
        let mut session = self.given.connect().await.context("cannot reach the database's server")?;
        let length = i64::try_from(self.name.len()).unwrap_or(i64::MAX);
        let ours = sqlx::query_scalar(DATABASES).bind(length).bind(&self.name).fetch_all(&mut session).await?;
        for name in ours.into_iter().chain([self.name.clone()]) {
            session.execute(AssertSqlSafe(format!("DROP DATABASE IF EXISTS `{name}`"))).await?;
        }
        // Users are the server's; those that Semel made for this database carry its name.
        let users = logins.into_iter().flat_map(|(login, owner)| [Some(login), owner]).flatten();
        for user in users.filter(|user| user.contains(&self.name)) {
            session.execute(AssertSqlSafe(format!("DROP USER IF EXISTS '{user}'"))).await?;
        }
        session.close().await?;
        Ok(())
    }
}
