//! The floors on SQLite: one thread, one connection, SQLite's C interface called directly.
//!
//! WAL and `synchronous=FULL` as Semel has them, everything else as SQLite comes; statements prepared once; no thread to hand
//! anything to. A message is one `DELETE … RETURNING` of the oldest row, an UPDATE of its counter and a SELECT of what it shows
//! now. The floors have a file of their own beside Semel's, so on the same disk, and it is fresh each time.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension as _};
use serde_json::{Value as Json, json};
use tokio::task::block_in_place;
use uuid::Uuid;

use super::ground::{Ground, Inserted, Work};
use super::load::{self, name};
use super::rate;

const FLOOR: &str = "
    CREATE TABLE queue (id INTEGER PRIMARY KEY, body TEXT NOT NULL);
    CREATE TABLE counters (id VARCHAR(100) PRIMARY KEY, n BIGINT NOT NULL)";
const CLAIM: &str = "DELETE FROM queue WHERE id = (SELECT id FROM queue ORDER BY id LIMIT 1) RETURNING body";
const COUNT: &str = "UPDATE counters SET n = n + 1 WHERE id = ?1";
const READ: &str = "SELECT n FROM counters WHERE id = ?1";
const INSERT: &str = "INSERT INTO queue (body) VALUES (?1)";
const COUNTERS: &str = "SELECT id, n FROM counters";
const SUM: &str = "SELECT coalesce(sum(n), 0) FROM counters";

const FILL_MESSAGE: &str = include_str!("file/fill_message.sql");
const FILL_QUEUE: &str = include_str!("file/fill_queue.sql");
const PASS_MESSAGES: &str = include_str!("file/pass_messages.sql");
const PASS_HISTORY: &str = include_str!("file/pass_history.sql");
const PASS_ATTEMPTS: &str = include_str!("file/pass_attempts.sql");
const LAST: &str = "SELECT coalesce(max(seq), 0) FROM semel_messages";
const TAKE_OUT: &str = "DELETE FROM semel_queue WHERE state = 'running'";

/// Messages per second of the same job on two cores, measured apart, on another run, by performance.md; with the effect in the
/// transaction of the acknowledgement.
const OTHERS: [(&str, u64); 1] = [("River, Tx", 1_040)];

/// How long we wait for the host to let go of the write lock.
const PATIENCE: Duration = Duration::from_secs(60);

pub(super) struct File {
    path: PathBuf,
    /// Beside the host, which has made the tables.
    beside: Option<Connection>,
}

impl File {
    /// A file that is not there yet.
    pub(super) fn named(url: &str) -> anyhow::Result<Self> {
        let path = url.strip_prefix("sqlite:").map(|path| PathBuf::from(path.trim_start_matches("//")));
        let path = path
            .context("the database is neither a file nor a server; write sqlite://PATH, postgres://… or mysql://…")?;
        let path = std::path::absolute(path).context("cannot tell where the file is")?;
        if path.exists() {
            bail!("{} is there already: the bench makes a file of its own, and removes it", path.display());
        }
        Ok(Self { path, beside: None })
    }

    fn beside(&mut self) -> anyhow::Result<&mut Connection> {
        if self.beside.is_none() {
            let connection = Connection::open(&self.path).context("cannot open the host's file")?;
            connection.busy_timeout(PATIENCE)?;
            self.beside = Some(connection);
        }
        self.beside.as_mut().context("no connection")
    }

    fn floor_path(&self) -> PathBuf {
        let mut name = self.path.as_os_str().to_owned();
        name.push("-floor");
        name.into()
    }

    /// An empty file for a floor.
    fn floor(&self) -> anyhow::Result<Connection> {
        let path = self.floor_path();
        remove(&path)?;
        let connection = Connection::open(&path).with_context(|| format!("cannot make {}", path.display()))?;
        let mode: String = connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))?;
        ensure!(mode == "wal", "SQLite does not write ahead in {}, but in the mode {mode}", path.display());
        connection.execute_batch("PRAGMA synchronous = FULL")?;
        connection.execute_batch(FLOOR)?;
        Ok(connection)
    }

    fn run_floor(&self, work: &Work<'_>) -> anyhow::Result<f64> {
        let mut floor = self.floor()?;
        let counters = load::counters(work.picks);
        let filling = floor.transaction()?;
        {
            let (mut message, mut counter) =
                (filling.prepare(INSERT)?, filling.prepare("INSERT INTO counters VALUES (?1, 0)")?);
            for counter in work.picks {
                message.execute([name(*counter)])?;
            }
            for number in 0..counters {
                counter.execute([name(number)])?;
            }
        }
        filling.commit()?;
        checkpoint(&floor)?;
        let began = Instant::now();
        let count = drained(&floor, work.together)?;
        let took = began.elapsed();
        ensure!(count == work.picks.len() as u64, "the floor has worked off {count} messages of {}", work.picks.len());
        load::check_floor(counters, work.picks, rows(&floor)?)?;
        rate(count, took.as_secs_f64())
    }

    fn run_inserts(&self, count: u32) -> anyhow::Result<Inserted> {
        let floor = self.floor()?;
        let mut insert = floor.prepare(INSERT)?;
        let mut times = Vec::with_capacity(count as usize);
        let began = Instant::now();
        for number in 0..count {
            let began = Instant::now();
            insert.execute([name(number % 1_000)])?; // Commits by itself.
            times.push(began.elapsed());
        }
        let took = began.elapsed();
        let found: u32 = floor.query_row("SELECT count(*) FROM queue", [], |row| row.get(0))?;
        ensure!(found == count, "the floor has put {found} messages into its queue instead of {count}");
        times.sort_unstable();
        let median = times.get(times.len() / 2).copied().unwrap_or_default();
        Ok(Inserted { rate: rate(count.into(), took.as_secs_f64())?, median })
    }

    fn put(&mut self, function: &str, bodies: &[String]) -> anyhow::Result<()> {
        let filling = self.beside()?.transaction()?;
        {
            let (mut message, mut place) = (filling.prepare(FILL_MESSAGE)?, filling.prepare(FILL_QUEUE)?);
            for body in bodies {
                let (id, event) = (Uuid::now_v7().simple().to_string(), Uuid::now_v7().to_string());
                let seq: i64 = message.query_row((id, event, function, body.as_bytes(), now()), |row| row.get(0))?;
                place.execute((seq, function, now()))?;
            }
        }
        Ok(filling.commit()?)
    }

    fn put_passed(&mut self, function: &str, count: u32) -> anyhow::Result<()> {
        let passing = self.beside()?.transaction()?;
        let mark: i64 = passing.query_row(LAST, [], |row| row.get(0))?;
        passing.execute(PASS_MESSAGES, (function, count, now()))?;
        passing.execute(PASS_HISTORY, [mark])?;
        passing.execute(PASS_ATTEMPTS, [mark])?;
        Ok(passing.commit()?)
    }
}

/// Works off what waits, so many messages per commit, and says how many there were.
fn drained(floor: &Connection, together: u32) -> anyhow::Result<u64> {
    let [mut begin, mut commit] = [floor.prepare("BEGIN IMMEDIATE")?, floor.prepare("COMMIT")?];
    let [mut claim, mut update, mut read] = [floor.prepare(CLAIM)?, floor.prepare(COUNT)?, floor.prepare(READ)?];
    let mut count = 0;
    loop {
        begin.execute([])?;
        let before = count;
        while count - before < u64::from(together) {
            let body: Option<String> = claim.query_row([], |row| row.get(0)).optional()?;
            let Some(body) = body else { break };
            ensure!(update.execute([&body])? == 1, "there is no counter {body}");
            let _shown: i64 = read.query_row([&body], |row| row.get(0))?;
            count += 1;
        }
        commit.execute([])?;
        if count == before {
            return Ok(count);
        }
    }
}

fn rows(connection: &Connection) -> anyhow::Result<Vec<(String, i64)>> {
    let mut statement = connection.prepare(COUNTERS)?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Nobody shall pay later for what was written before the clock started.
fn checkpoint(connection: &Connection) -> anyhow::Result<()> {
    connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
    Ok(())
}

/// As the host writes times: microseconds since 1970.
fn now() -> i64 {
    jiff::Timestamp::now().as_microsecond()
}

/// The file, and what SQLite and the host put beside it.
fn remove(path: &Path) -> anyhow::Result<()> {
    for ending in ["", "-wal", "-shm", ".lock", ".ledger", ".ledger-wal", ".ledger-shm"] {
        let mut name = path.as_os_str().to_owned();
        name.push(ending);
        match std::fs::remove_file(&name) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("cannot remove {}", Path::new(&name).display()));
            }
            _ => {}
        }
    }
    Ok(())
}

#[async_trait]
impl Ground for File {
    fn url(&self) -> String {
        format!("sqlite://{}", self.path.display())
    }

    fn connections(&self) -> u32 {
        1 // There is one writer, however many connections there are.
    }

    fn others(&self) -> &'static [(&'static str, u64)] {
        &OTHERS
    }

    async fn facts(&mut self) -> anyhow::Result<Json> {
        let floor = self.floor()?;
        let text = |sql: &str| floor.query_row(sql, [], |row| row.get::<_, rusqlite::types::Value>(0));
        let mut settings = serde_json::Map::new();
        for name in ["journal_mode", "synchronous", "page_size", "wal_autocheckpoint", "cache_size"] {
            let value = match text(&format!("PRAGMA {name}"))? {
                rusqlite::types::Value::Integer(number) => json!(number),
                rusqlite::types::Value::Text(text) => json!(text),
                other => json!(format!("{other:?}")),
            };
            settings.insert(name.to_owned(), value);
        }
        let in_memory = is_in_memory(&self.path);
        Ok(json!({
            "kind": "sqlite", "version": rusqlite::version(), "settings": settings, "waits_for_the_disk": !in_memory,
        }))
    }

    async fn drain(&mut self, work: &Work<'_>) -> anyhow::Result<f64> {
        block_in_place(|| self.run_floor(work))
    }

    async fn insert(&mut self, count: u32, _connections: u32) -> anyhow::Result<Inserted> {
        block_in_place(|| self.run_inserts(count))
    }

    async fn fill(&mut self, function: &str, bodies: &[String]) -> anyhow::Result<()> {
        block_in_place(|| self.put(function, bodies))
    }

    async fn settle(&mut self) -> anyhow::Result<()> {
        block_in_place(|| checkpoint(self.beside()?))
    }

    async fn counted(&mut self) -> anyhow::Result<i64> {
        block_in_place(|| Ok(self.beside()?.prepare_cached(SUM)?.query_row([], |row| row.get(0))?))
    }

    async fn counters(&mut self) -> anyhow::Result<Vec<(String, i64)>> {
        block_in_place(|| rows(self.beside()?))
    }

    async fn log_bytes(&mut self) -> anyhow::Result<Option<u64>> {
        Ok(None)
    }

    async fn pass(&mut self, function: &str, count: u32) -> anyhow::Result<()> {
        block_in_place(|| self.put_passed(function, count))
    }

    async fn take_out_claimed(&mut self) -> anyhow::Result<()> {
        block_in_place(|| {
            self.beside()?.execute(TAKE_OUT, [])?;
            Ok(())
        })
    }

    async fn remove(&mut self) -> anyhow::Result<()> {
        self.beside = None;
        remove(&self.floor_path())?;
        remove(&self.path)
    }
}

/// Whether the file's folder forgets everything anyway, and so never waits for a disk.
fn is_in_memory(path: &Path) -> bool {
    const TMPFS: i64 = 0x0102_1994;
    path.parent().is_some_and(|folder| rustix::fs::statfs(folder).is_ok_and(|found| found.f_type == TMPFS))
}
