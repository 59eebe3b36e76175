//! SQLite: one file holds the queue and the app's tables; one host process holds the file.
//!
//! All writes go through one connection (`connection.rs`). A thread has it (`writer.rs`), does the engine's short
//! operations, and lends it to a guest for a transaction; reads go through a small pool beside it. The guest's statements
//! run on the same connection as the engine's, behind the walls of `walls.rs` and `guest_sql.rs`, since effects and
//! acknowledgement are one commit. WAL with `synchronous=FULL`: what is acknowledged survives power loss.

use std::fs::{File, TryLockError};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use sqlx::sqlite::{SqliteConnectOptions, SqlitePool, SqlitePoolOptions};
use tokio::sync::Notify;

use super::{Error, Held};
use crate::clock::AnchoredClock;
use crate::crash;

mod accept;
mod acknowledge;
mod byte_code;
mod catalog;
mod connection;
mod cron;
mod functions;
#[cfg(test)]
mod fuzz;
mod gate;
mod group;
mod guest_sql;
mod harden;
mod health;
mod kept;
mod ledger;
mod power;
mod queue;
mod records;
mod schema;
mod session;
mod sqlstate;
mod statement;
mod steering;
mod values;
mod walls;
mod writer;

use connection::Connection;
use ledger::LedgerFile;
use writer::Writer;

const HELD: &str = include_str!("sqlite/held.sql");

pub(super) struct Sqlite {
    writer: Writer,
    readers: SqlitePool,
    path: PathBuf,
    clock: AnchoredClock,
    ledger: LedgerFile,
    epoch: i64,
    secret: [u8; 32],
    work: Arc<Notify>,
}

impl Sqlite {
    pub(super) async fn open(path: &str) -> Result<Self, Error> {
        let path = canonical(Path::new(path))?;
        let lock = lock(&path)?;
        if crash::takes_power() {
            power::arm()?;
        }
        let clock = AnchoredClock::anchor();
        let writer = Writer::start(path.clone(), clock, lock).await.map_err(|e| at(&path, &e))?;
        let opened = writer.run(schema::prepare).await.map_err(|e| at(&path, &e))?;
        let ledger = LedgerFile::open(&path, clock).await?;
        let readers = SqlitePoolOptions::new().max_connections(4).connect_lazy_with(options_for_reading(&path));
        let work = Arc::new(Notify::new());
        Ok(Self { writer, readers, path, clock, ledger, epoch: opened.epoch, secret: opened.secret, work })
    }

    /// Runs an operation of the engine in a transaction of its own: committed if it is ok, else without a trace.
    async fn transaction<T: Send + 'static>(
        &self,
        operation: impl FnOnce(&mut Connection) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        self.writer.run(move |connection| connection.transaction(operation)).await
    }
}

fn options_for_reading(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new().filename(path).read_only(true).busy_timeout(Duration::from_secs(5))
}

fn at(path: &Path, error: &Error) -> Error {
    Error::Broken(format!(
        "{}: {error}; it must be a SQLite database of Semel, or not exist yet, in a folder that this user may write to",
        path.display()
    ))
}

/// One name for one file, whatever links lead to it, so that there is one lock.
fn canonical(path: &Path) -> Result<PathBuf, Error> {
    if path.as_os_str().is_empty() || path == Path::new(":memory:") {
        return Err(Error::Refused("the database must be a file: write sqlite://PATH".into()));
    }
    // Made first, if it is not there: a link to nothing has no other name yet.
    let made = File::options().append(true).create(true).open(path).map(drop);
    let found = match made {
        Err(e) if e.kind() != std::io::ErrorKind::PermissionDenied => Err(e),
        _ => path.canonicalize(), // One that may only be read is refused later, by its lock.
    };
    found.map_err(|e: std::io::Error| {
        Error::Refused(format!(
            "cannot open {} ({e}); it must be a SQLite database of Semel or not be there yet, and its folder must exist",
            path.display()
        ))
    })
}

/// The database is this process's, for as long as this lives or the process does.
struct Lock(File);

impl Drop for Lock {
    fn drop(&mut self) {
        // Not by closing alone: a child that is being started shares the open file until it is its own program.
        let _ = self.0.unlock(); // If it cannot be unlocked, closing is what is left.
    }
}

/// Takes the lock file beside the database, or says who has it.
fn lock(path: &Path) -> Result<Lock, Error> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let name = PathBuf::from(name);
    let refused = |e: &std::io::Error| {
        Error::Refused(format!(
            "cannot open {} ({e}); the database's folder must exist and be writable for this user",
            name.display()
        ))
    };
    let mut file =
        File::options().read(true).write(true).create(true).truncate(false).open(&name).map_err(|e| refused(&e))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            let _ = file.read_to_string(&mut holder); // Only for the message: an empty holder is "another process".
            return Err(Error::Refused(format!(
                "{} is held by another host ({}); an SQLite file belongs to one host process. Stop that one, or use \
                 another file",
                path.display(),
                if holder.is_empty() { "unknown process" } else { holder.trim() }
            )));
        }
        Err(TryLockError::Error(e)) => return Err(refused(&e)),
    }
    file.set_len(0).and_then(|()| writeln!(file, "process {}", std::process::id())).map_err(|e| refused(&e))?;
    Ok(Lock(file))
}

/// See [`super::held`].
pub(super) async fn held(path: &str) -> anyhow::Result<Vec<Held>> {
    let path = canonical(Path::new(path))?;
    let lock = lock(&path)?;
    let connection = rusqlite::Connection::open(&path)?;
    let mut statement = connection.prepare(HELD)?;
    let held = statement
        .query_map((), |row| Ok(Held { message: row.get(0)?, attempt: row.get(1)?, host: row.get(2)? }))?
        .collect::<Result<_, _>>()?;
    drop(lock);
    Ok(held)
}

/// As the database keeps lists, and as `json_each` reads them.
fn json<T: serde::Serialize>(list: &[T]) -> String {
    if list.is_empty() {
        return "[]".into(); // As most of them are.
    }
    serde_json::to_string(list).unwrap_or_else(|_| "[]".into())
}

/// What an error of the readers' driver means to the caller.
fn classify(error: sqlx::Error) -> Error {
    let text = error.to_string();
    match &error {
        sqlx::Error::Database(database) => {
            by_code(database.code().and_then(|code| code.parse().ok()).unwrap_or_default(), text)
        }
        sqlx::Error::PoolTimedOut | sqlx::Error::Io(_) => Error::Unavailable(text),
        _ => Error::Broken(text),
    }
}

/// What an error of the writer's connection means to the caller.
impl From<rusqlite::Error> for Error {
    fn from(error: rusqlite::Error) -> Self {
        by_code(error.sqlite_error().map_or(0, |error| error.extended_code), error.to_string())
    }
}

/// By SQLite's result code.
fn by_code(code: i32, text: String) -> Error {
    match code & 0xff {
        libsqlite3_sys::SQLITE_BUSY
        | libsqlite3_sys::SQLITE_LOCKED
        | libsqlite3_sys::SQLITE_FULL
        | libsqlite3_sys::SQLITE_IOERR
        | libsqlite3_sys::SQLITE_NOMEM
        | libsqlite3_sys::SQLITE_READONLY
        | libsqlite3_sys::SQLITE_CANTOPEN => Error::Unavailable(text),
        _ => Error::Broken(text),
    }
}
