//! The engine's own schema: migrated at open, in order, each once.

use super::Error;
use super::connection::Connection;

const MIGRATIONS: [&str; 4] = [
    include_str!("../../../../migrations/sqlite/0001_queue.sql"),
    include_str!("../../../../migrations/sqlite/0002_steering.sql"),
    include_str!("../../../../migrations/sqlite/0003_deferred.sql"),
    include_str!("../../../../migrations/sqlite/0004_cron.sql"),
];
const INSTALL: &str = include_str!("install.sql");
const OPEN_EPOCH: &str = include_str!("open_epoch.sql");

/// The version of the schema that this program writes.
pub(super) const VERSION: usize = MIGRATIONS.len();

/// Marks a file as Semel's ("Seml").
const APPLICATION: i64 = 0x5365_6d6c;

/// What a host learns when it opens the file.
pub(super) struct Opened {
    pub(super) epoch: i64,
    pub(super) secret: [u8; 32],
}

/// Brings the schema up to date and begins a new epoch.
pub(super) fn prepare(connection: &mut Connection) -> Result<Opened, Error> {
    check_owner(connection)?;
    let found = check_version(connection)?;
    set_journal(connection)?;
    connection.transaction(|connection| migrate(connection, found))?;
    connection.transaction(|connection| begin_epoch(connection))
}

/// A file of another program is refused before anything in it is changed.
fn check_owner(connection: &Connection) -> Result<(), Error> {
    let owner = connection.one("PRAGMA application_id", (), |row| row.get(0))?;
    let tables: i64 = connection.one("SELECT count(*) FROM sqlite_schema", (), |row| row.get(0))?;
    match (owner, tables) {
        (APPLICATION, _) | (0, 0) => Ok(()),
        _ => Err(Error::Refused("this is a database of another program; name a file of its own for Semel".into())),
    }
}

/// The schema's version. That of a later program is refused before anything in the file is changed.
fn check_version(connection: &Connection) -> Result<usize, Error> {
    let found: i64 = connection.one("PRAGMA user_version", (), |row| row.get(0))?;
    let found = usize::try_from(found).unwrap_or(0);
    if found <= MIGRATIONS.len() {
        return Ok(found);
    }
    Err(Error::Refused(format!(
        "the schema has version {found}, this program knows up to {}; use a newer semel",
        MIGRATIONS.len()
    )))
}

/// The journal mode is kept in the file; a commit is one sync in it.
fn set_journal(connection: &Connection) -> Result<(), Error> {
    let mode: String = connection.one("PRAGMA journal_mode = WAL", (), |row| row.get(0))?;
    if mode == "wal" {
        return Ok(());
    }
    Err(Error::Refused(format!(
        "the file's journal mode stays {mode}, where write-ahead logging is needed; use a local file system"
    )))
}

fn migrate(connection: &Connection, found: usize) -> Result<(), Error> {
    if found == 0 {
        connection.sql.execute_batch(&format!("PRAGMA application_id = {APPLICATION}"))?;
    }
    for (number, migration) in MIGRATIONS.iter().enumerate().skip(found) {
        connection.sql.execute_batch(migration)?;
        connection.sql.execute_batch(&format!("PRAGMA user_version = {}", number + 1))?;
    }
    Ok(())
}

fn begin_epoch(connection: &Connection) -> Result<Opened, Error> {
    let secret: [u8; 32] = rand::random();
    let now = connection.clock.now();
    connection.execute(INSTALL, (&secret[..], now.0))?;
    let (epoch, secret): (i64, Vec<u8>) = connection.one(OPEN_EPOCH, (), |row| Ok((row.get(0)?, row.get(1)?)))?;
    let secret = secret.try_into().map_err(|_| Error::Broken("the installation's secret is damaged".into()))?;
    Ok(Opened { epoch, secret })
}
