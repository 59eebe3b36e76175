//! The engine's own schema: migrated at open, in order, each once. Several hosts may open an empty database at once: one of
//! them makes the schema, the others fail to and look again.

use sqlx::postgres::PgConnection;
use sqlx::{Executor, Row};

use super::connection::Engine;
use super::errors::at_install;
use super::{Error, classify};

const MIGRATIONS: [&str; 8] = [
    include_str!("../../../../migrations/postgres/0001_engine.sql"),
    include_str!("../../../../migrations/postgres/0002_api.sql"),
    include_str!("../../../../migrations/postgres/0003_ledger.sql"),
    include_str!("../../../../migrations/postgres/0004_deferred.sql"),
    include_str!("../../../../migrations/postgres/0005_rehearsals.sql"),
    include_str!("../../../../migrations/postgres/0006_batches.sql"),
    include_str!("../../../../migrations/postgres/0007_plans.sql"),
    include_str!("../../../../migrations/postgres/0008_cron.sql"),
];
const FIND: &str = include_str!("schema_find.sql");
const VERSION_FIND: &str = include_str!("schema_version.sql");
const ADVANCE: &str = include_str!("schema_advance.sql");
const INSTALL: &str = include_str!("install.sql");

/// The version of the schema that this program writes.
pub(super) const VERSION: usize = MIGRATIONS.len();

/// Brings the schema up to date. Returns the installation's secret.
pub(super) async fn prepare(engine: &Engine) -> Result<[u8; 32], Error> {
    if !exists(engine).await?
        && let Err(error) = engine.transaction(|of| Box::pin(install(of))).await
        && !exists(engine).await?
    {
        return Err(error);
    }
    engine.transaction(|of| Box::pin(advance(of))).await
}

async fn exists(engine: &Engine) -> Result<bool, Error> {
    let find = engine.run(|connection| {
        Box::pin(async move { sqlx::query_scalar(FIND).fetch_one(connection).await.map_err(classify) })
    });
    find.await
}

async fn install(connection: &mut PgConnection) -> Result<(), Error> {
    for migration in MIGRATIONS {
        sqlx::raw_sql(migration).execute(&mut *connection).await.map_err(at_install)?;
    }
    let secret: [u8; 32] = rand::random();
    let install = sqlx::query(INSTALL).bind(version(VERSION)).bind(&secret[..]);
    install.execute(connection).await.map(drop).map_err(classify)
}

async fn advance(connection: &mut PgConnection) -> Result<[u8; 32], Error> {
    let row = connection.fetch_one(VERSION_FIND).await.map_err(classify)?;
    let found = usize::try_from(row.get::<i64, _>(0)).unwrap_or(0);
    if found > VERSION {
        return Err(Error::Refused(format!(
            "the schema has version {found}, this program knows up to {VERSION}; use a newer semel"
        )));
    }
    for (number, migration) in MIGRATIONS.iter().enumerate().skip(found) {
        sqlx::raw_sql(*migration).execute(&mut *connection).await.map_err(classify)?;
        let advance = sqlx::query(ADVANCE).bind(version(number + 1));
        advance.execute(&mut *connection).await.map_err(classify)?;
    }
    let secret: Vec<u8> = row.get(1);
    secret.try_into().map_err(|_| Error::Broken("the installation's secret is damaged".into()))
}

fn version(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
