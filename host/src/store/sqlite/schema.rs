//! The engine's own schema: migrated at open, in order, each once.

use futures_util::future::LocalBoxFuture;
use sqlx::{AssertSqlSafe, Executor, Row};

use super::connection::Connection;
use super::{Error, classify};

const MIGRATIONS: [&str; 3] = [
    include_str!("../../../../migrations/sqlite/0001_queue.sql"),
    include_str!("../../../../migrations/sqlite/0002_steering.sql"),
    include_str!("../../../../migrations/sqlite/0003_deferred.sql"),
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
pub(super) async fn prepare(connection: &mut Connection) -> Result<Opened, Error> {
    check_owner(connection).await?;
    let found = check_version(connection).await?;
    set_journal(connection).await?;
    connection.transaction(|connection| Box::pin(migrate(connection, found))).await?;
    connection.transaction(|connection| Box::pin(begin_epoch(connection))).await
}

/// A file of another program is refused before anything in it is changed.
async fn check_owner(connection: &mut Connection) -> Result<(), Error> {
    let row = connection.sql.fetch_one("PRAGMA application_id").await.map_err(classify)?;
    let tables = connection.sql.fetch_one("SELECT count(*) FROM sqlite_schema").await.map_err(classify)?;
    match (row.get::<i64, _>(0), tables.get::<i64, _>(0)) {
        (APPLICATION, _) | (0, 0) => Ok(()),
        _ => Err(Error::Refused("this is a database of another program; name a file of its own for Semel".into())),
    }
}

/// The schema's version. That of a later program is refused before anything in the file is changed.
async fn check_version(connection: &mut Connection) -> Result<usize, Error> {
    let row = connection.sql.fetch_one("PRAGMA user_version").await.map_err(classify)?;
    let found = usize::try_from(row.get::<i64, _>(0)).unwrap_or(0);
    if found <= MIGRATIONS.len() {
        return Ok(found);
    }
    Err(Error::Refused(format!(
        "the schema has version {found}, this program knows up to {}; use a newer semel",
        MIGRATIONS.len()
    )))
}

/// The journal mode is kept in the file; a commit is one sync in it.
async fn set_journal(connection: &mut Connection) -> Result<(), Error> {
    let row = connection.sql.fetch_one("PRAGMA journal_mode = WAL").await.map_err(classify)?;
    match row.get::<&str, _>(0) {
        "wal" => Ok(()),
        other => Err(Error::Refused(format!(
            "the file's journal mode stays {other}, where write-ahead logging is needed; use a local file system"
        ))),
    }
}

async fn migrate(connection: &mut Connection, found: usize) -> Result<(), Error> {
    if found == 0 {
        let name = format!("PRAGMA application_id = {APPLICATION}");
        connection.sql.execute(AssertSqlSafe(name)).await.map_err(classify)?;
    }
    for (number, migration) in MIGRATIONS.iter().enumerate().skip(found) {
        sqlx::raw_sql(*migration).execute(&mut connection.sql).await.map_err(classify)?;
        let version = format!("PRAGMA user_version = {}", number + 1);
        connection.sql.execute(AssertSqlSafe(version)).await.map_err(classify)?;
    }
    Ok(())
}

fn begin_epoch(connection: &mut Connection) -> LocalBoxFuture<'_, Result<Opened, Error>> {
    Box::pin(async move {
        let secret: [u8; 32] = rand::random();
        let now = connection.clock.now();
        let install = sqlx::query(INSTALL).bind(&secret[..]).bind(now.0);
        install.execute(&mut connection.sql).await.map_err(classify)?;
        let row = sqlx::query(OPEN_EPOCH).fetch_one(&mut connection.sql).await.map_err(classify)?;
        let secret: Vec<u8> = row.get(1);
        let secret = secret.try_into().map_err(|_| Error::Broken("the installation's secret is damaged".into()))?;
        Ok(Opened { epoch: row.get(0), secret })
    })
}
