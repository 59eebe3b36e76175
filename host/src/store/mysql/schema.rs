//! The engine's own tables: migrated at open, in order. A change of a table commits by itself, so a migration may break off in
//! the middle; each can be run again. One host at a time runs them, by a lock that the server drops with the session; its name
//! is nobody else's secret to know as soon as there are apps, whose logins might take it.

use sha2::{Digest, Sha256};
use sqlx::mysql::MySqlConnection;
use sqlx::{Executor, Row};

use super::connection::Engine;
use super::errors::at_install;
use super::{Error, classify};

const MIGRATIONS: [&str; 3] = [
    include_str!("../../../../migrations/mysql/0001_engine.sql"),
    include_str!("../../../../migrations/mysql/0002_groups.sql"),
    include_str!("../../../../migrations/mysql/0003_api.sql"),
];
const FIND: &str = include_str!("engine_find.sql");
const VERSION_FIND: &str = include_str!("schema_version.sql");
const ADVANCE: &str = include_str!("schema_advance.sql");
const INSTALL: &str = include_str!("install.sql");
const DATABASE: &str = "SELECT DATABASE()";
const TAKE_TURN: &str = "SELECT GET_LOCK(?, 30)";
const GIVE_TURN: &str = "DO RELEASE_ALL_LOCKS()";

/// The version of the schema that this program writes.
pub(super) const VERSION: usize = MIGRATIONS.len();

/// Brings the schema up to date. Returns the installation's secret.
pub(super) async fn prepare(engine: &Engine) -> Result<[u8; 32], Error> {
    let prepared = engine.long(|connection| {
        Box::pin(async move {
            let Some(at) = standing(connection).await? else {
                return install(connection).await;
            };
            if at.schema > VERSION {
                return Err(Error::Refused(format!(
                    "the schema has version {}, this program knows up to {VERSION}; use a newer semel",
                    at.schema
                )));
            }
            if at.schema < VERSION {
                advance(connection, at.secret).await?;
            }
            Ok(at.secret)
        })
    });
    prepared.await
}

struct Standing {
    schema: usize,
    secret: [u8; 32],
}

/// None if the tables were not made to the end yet.
async fn standing(connection: &mut MySqlConnection) -> Result<Option<Standing>, Error> {
    let tables: i64 = sqlx::query_scalar(FIND).fetch_one(&mut *connection).await.map_err(classify)?;
    if tables == 0 {
        return Ok(None);
    }
    let Some(row) = sqlx::query(VERSION_FIND).fetch_optional(connection).await.map_err(classify)? else {
        return Ok(None);
    };
    let schema = usize::try_from(row.get::<i64, _>(0)).unwrap_or(0);
    let secret = row.get::<Vec<u8>, _>(1).try_into();
    Ok(Some(Standing {
        schema,
        secret: secret.map_err(|_| Error::Broken("the installation's secret is damaged".into()))?,
    }))
}

async fn install(connection: &mut MySqlConnection) -> Result<[u8; 32], Error> {
    let database: String = sqlx::query_scalar(DATABASE).fetch_one(&mut *connection).await.map_err(classify)?;
    take_turn(connection, database.as_bytes()).await?;
    if standing(connection).await?.is_none() {
        for migration in MIGRATIONS {
            sqlx::raw_sql(migration).execute(&mut *connection).await.map_err(at_install)?;
        }
        let secret: [u8; 32] = rand::random();
        let install = sqlx::query(INSTALL).bind(version(VERSION)).bind(&secret[..]);
        install.execute(&mut *connection).await.map_err(classify)?;
    }
    connection.execute(GIVE_TURN).await.map_err(classify)?;
    let at = standing(connection).await?;
    at.map(|at| at.secret).ok_or_else(|| Error::Broken("the engine's tables were made, and are not there".into()))
}

async fn advance(connection: &mut MySqlConnection, secret: [u8; 32]) -> Result<(), Error> {
    take_turn(connection, &secret).await?;
    let found = standing(connection).await?.map_or(VERSION, |at| at.schema);
    for (number, migration) in MIGRATIONS.iter().enumerate().skip(found) {
        sqlx::raw_sql(*migration).execute(&mut *connection).await.map_err(classify)?;
        let advance = sqlx::query(ADVANCE).bind(version(number + 1));
        advance.execute(&mut *connection).await.map_err(classify)?;
    }
    connection.execute(GIVE_TURN).await.map(drop).map_err(classify)
}

async fn take_turn(connection: &mut MySqlConnection, of: &[u8]) -> Result<(), Error> {
    let name = format!("semel {}", hex::encode(&Sha256::digest(of)[..16]));
    let taken: Option<i64> = sqlx::query_scalar(TAKE_TURN).bind(name).fetch_one(connection).await.map_err(classify)?;
    match taken {
        Some(1) => Ok(()),
        _ => Err(Error::Busy("another host migrates the schema".into())),
    }
}

fn version(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
