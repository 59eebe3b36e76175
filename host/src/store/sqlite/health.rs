//! What `semel doctor` says of the database and of the walls. Each wall is looked at by running against it.

use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use sqlx::{Executor, Row};

use super::connection::Connection;
use super::walls::{Mode, is_heap_limited};
use super::{Error, Sqlite, classify, gate, guest_sql, schema};
use crate::store::Fact;

const CHECK: &str = include_str!("check.sql");
/// A full check reads the whole file: beyond this size nobody waits for it.
const LARGEST_CHECKED: i64 = 1 << 30;
/// Below this the next hour may fill the disk.
const LITTLE_SPACE: u64 = 256 << 20;
/// The log is written back when it has a few megabytes, unless a reader keeps it from that.
const LONG_LOG: u64 = 256 << 20;
/// A wall clock that was set shows by more than this, a slow machine by less.
const CLOCKS_APART: Duration = Duration::from_secs(2);
/// A commit that takes longer has a disk that is in trouble, or a guest before it.
const SLOW_WRITE: Duration = Duration::from_secs(1);
/// More rows than it takes until SQLite asks whether it may go on.
const MANY_ROWS: &str =
    "WITH RECURSIVE n (i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 20000) SELECT max(i) FROM n";

impl Sqlite {
    /// See [`crate::store::Records::check`].
    pub(super) async fn check_writer(&self) -> Result<(), Error> {
        self.transaction(|connection| Ok(connection.sql.execute_batch(CHECK)?)).await
    }

    /// All that there is to say.
    pub(super) async fn facts(&self) -> Result<Vec<Fact>, Error> {
        let mut facts = vec![
            self.setting("SQLite", "SELECT sqlite_version()", None).await?,
            self.setting("journal mode", "PRAGMA journal_mode", Some("wal")).await?,
            self.setting("schema version", "PRAGMA user_version", Some(&schema::VERSION.to_string())).await?,
            self.integrity().await?,
            self.synchronous().await?,
            self.write().await,
            self.clocks(),
        ];
        facts.extend(self.space());
        facts.extend(self.writer.run(|connection| Ok(walls(connection))).await?);
        Ok(facts)
    }

    async fn setting(&self, name: &str, sql: &'static str, expected: Option<&str>) -> Result<Fact, Error> {
        let row = self.readers.fetch_one(sql).await.map_err(classify)?;
        let value = row.try_get::<String, _>(0).unwrap_or_else(|_| row.get::<i64, _>(0).to_string());
        let wrong = expected.filter(|expected| *expected != value);
        let advice = wrong.map(|expected| format!("should be {expected}; restore the file from a backup"));
        Ok(fact(name, value, advice))
    }

    async fn integrity(&self) -> Result<Fact, Error> {
        let pages = "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size";
        let size: i64 = self.readers.fetch_one(pages).await.map_err(classify)?.get(0);
        if size <= LARGEST_CHECKED {
            return self.setting("integrity", "PRAGMA quick_check(1)", Some("ok")).await;
        }
        let value = format!(
            "not checked, the file has {}; `PRAGMA quick_check` in a copy of it does",
            bytes(size.unsigned_abs())
        );
        Ok(fact("integrity", value, None))
    }

    async fn synchronous(&self) -> Result<Fact, Error> {
        let asked = self.writer.run(|connection| connection.one("PRAGMA synchronous", (), |row| row.get(0)));
        let found: i64 = asked.await?;
        let value = if found == 2 { "full".to_owned() } else { found.to_string() };
        let weak = "acknowledged messages may be lost at power loss; this is a bug, report it";
        Ok(fact("synchronous", value, (found != 2).then(|| weak.to_owned())))
    }

    async fn write(&self) -> Fact {
        let began = Instant::now();
        let written = self.check_writer().await;
        let took = began.elapsed();
        let advice = match written {
            Ok(()) if took < SLOW_WRITE => None,
            Ok(()) => {
                Some("commits are slow: look at the disk, and for a function that holds its transaction long".into())
            }
            Err(_) => {
                Some("nothing can be accepted: look at the disk's space and rights, and at the host's log".into())
            }
        };
        let value = if written.is_ok() { format!("{:.1} ms", took.as_secs_f64() * 1000.0) } else { "fails".into() };
        fact("a durable write", value, advice)
    }

    fn clocks(&self) -> Fact {
        let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let apart = i128::from(self.clock.now().0) - i128::try_from(wall.as_micros()).unwrap_or(i128::MAX);
        let far = apart.unsigned_abs() > CLOCKS_APART.as_micros();
        let advice = "the machine's clock was set since the host started, so times in traces are off by this; leases and \
                      delays are not. Restart the host to take the new time";
        fact("store clock", format!("{:+.3} s from the machine's", apart as f64 / 1e6), far.then(|| advice.to_owned()))
    }

    fn space(&self) -> Vec<Fact> {
        let length = |suffix: &str| {
            let mut name = self.path.clone().into_os_string();
            name.push(suffix);
            std::fs::metadata(PathBuf::from(name)).map_or(0, |file| file.len())
        };
        let log = length("-wal");
        let free = rustix::fs::statvfs(&self.path).map_or(0, |disk| disk.f_bavail.saturating_mul(disk.f_frsize));
        let full = "make room: without it nothing is accepted any more";
        let stuck = "something reads the file without end and keeps its log from being written back: look for other \
                     programs that have it open";
        vec![
            fact("file", bytes(length("")), None),
            fact("write-ahead log", bytes(log), (log > LONG_LOG).then(|| stuck.to_owned())),
            fact("free on its disk", bytes(free), (free < LITTLE_SPACE).then(|| full.to_owned())),
        ]
    }
}

/// Each wall, on the connection of the guests and in a transaction like theirs, which is then rolled back.
fn walls(connection: &mut Connection) -> Vec<Fact> {
    let mut facts = vec![
        wall("first word", gate::first_word("COMMIT").is_err()),
        wall("names", gate::check_text("SELECT 1 FROM semel_queue").is_err()),
        wall("memory", is_heap_limited()),
        wall("defensive", schema_is_kept(connection)),
        wall("untrusted schema", is_off(connection, "PRAGMA trusted_schema")),
    ];
    if let Err(error) = connection.begin_guest() {
        tracing::warn!(%error, "the walls cannot be looked at");
        facts.push(wall("a guest's transaction", false));
        return facts;
    }
    facts.push(wall("one statement", one_statement(connection)));
    facts.push(wall("authorizer", denied(connection, "SELECT 1 FROM semel_queue")));
    facts.push(wall("byte code", byte_code(connection)));
    facts.push(wall("functions", denied(connection, "SELECT sqlite_compileoption_get(1)")));
    facts.push(wall("definitions", denied(connection, "CREATE TABLE semel_wall (a)")));
    facts.push(wall("limits", refused(connection, "ATTACH ':memory:' AS wall").contains("too many")));
    facts.push(wall("no text in double quotes", !refused(connection, "SELECT \"no column\"").is_empty()));
    facts.push(wall("deadline", is_stopped(connection)));
    // Last: a commit that is refused ends the transaction.
    facts.push(wall("commit hook", !refused(connection, "COMMIT").is_empty()));
    facts.push(wall("autocommit flag", guest_sql::ensure_open(connection).is_err()));
    connection.end_guest();
    facts
}

/// Whether SQLite ignores the wish to change its schema table.
fn schema_is_kept(connection: &mut Connection) -> bool {
    let _ = refused(connection, "PRAGMA writable_schema = ON"); // Ignored, or else seen in the next line.
    let kept = is_off(connection, "PRAGMA writable_schema");
    let _ = refused(connection, "PRAGMA writable_schema = OFF");
    kept
}

fn is_off(connection: &mut Connection, setting: &'static str) -> bool {
    connection.one(setting, (), |row| row.get::<_, i64>(0)).is_ok_and(|value| value == 0)
}

fn one_statement(connection: &mut Connection) -> bool {
    let deadline = Instant::now() + SLOW_WRITE;
    guest_sql::ready(connection, "SELECT 1; SELECT 2", &[], deadline).is_err()
}

/// As the host, whom neither names nor authorizer stop.
fn byte_code(connection: &mut Connection) -> bool {
    guest_sql::check_program(connection, "SELECT seq FROM semel_queue").is_err()
        && guest_sql::check_program(connection, "SELECT 1").is_ok()
}

fn denied(connection: &mut Connection, sql: &'static str) -> bool {
    connection.walls.was_denied();
    connection.walls.set_mode(Mode::Guest);
    let refused = !refused(connection, sql).is_empty();
    connection.walls.set_mode(Mode::Host);
    refused && connection.walls.was_denied()
}

/// In the guests' mode, since in the host's no query may have parts with names of their own.
fn is_stopped(connection: &mut Connection) -> bool {
    connection.walls.set_mode(Mode::Guest);
    connection.walls.set_deadline(Some(Instant::now()));
    let stopped = !refused(connection, MANY_ROWS).is_empty();
    connection.walls.set_deadline(None);
    connection.walls.set_mode(Mode::Host);
    stopped && connection.walls.was_interrupted()
}

/// What SQLite says against a statement; nothing if it runs.
fn refused(connection: &mut Connection, sql: &'static str) -> String {
    connection.sql.execute_batch(sql).map_or_else(|error| error.to_string(), |()| String::new())
}

fn wall(name: &str, stands: bool) -> Fact {
    let advice = "functions could reach what is not theirs: stop this host, and report it";
    Fact::new("wall", name, if stands { "stands" } else { "is down" }, (!stands).then(|| advice.to_owned()))
}

fn fact(name: &str, value: impl Into<String>, advice: Option<String>) -> Fact {
    Fact::new("database", name, value, advice)
}

fn bytes(count: u64) -> String {
    bytesize::ByteSize::b(count).to_string()
}
