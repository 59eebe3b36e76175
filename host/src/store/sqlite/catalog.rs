//! Deployed functions on SQLite. A deploy is one transaction: app migrations, component, version, activation.

use std::time::{Duration, Instant};

use async_trait::async_trait;
use sha2::{Digest, Sha256};
use sqlx::{Executor, Row};

use super::connection::Connection;
use super::walls::Mode;
use super::{Error, Sqlite, classify, gate};
use crate::clock::Timestamp;
use crate::message::Contract;
use crate::store::{Catalog, Deployment, FunctionRecord, VersionRecord};

const OTHER_APP: &str = include_str!("deploy_other_app.sql");
const SAME: &str = include_str!("deploy_same.sql");
const COMPONENT: &str = include_str!("deploy_component.sql");
const VERSION: &str = include_str!("deploy_version.sql");
const ACTIVATE: &str = include_str!("deploy_activate.sql");
const UNSUBSCRIBE: &str = include_str!("deploy_unsubscribe.sql");
const SUBSCRIBE: &str = include_str!("deploy_subscribe.sql");
const MIGRATION_FIND: &str = include_str!("app_migration_find.sql");
const MIGRATION_RECORD: &str = include_str!("app_migration_record.sql");
const ENGINE_SCHEMA: &str = include_str!("engine_schema.sql");
const FUNCTIONS: &str = include_str!("functions.sql");
const BYTES: &str = include_str!("component.sql");

/// How long one app migration may take; everything else waits for it.
const LONGEST_MIGRATION: Duration = Duration::from_secs(60);

#[async_trait]
impl Catalog for Sqlite {
    fn secret(&self) -> [u8; 32] {
        self.secret
    }

    async fn deploy(&self, deployment: Deployment) -> Result<i64, Error> {
        let version = self
            .writer
            .run(move |connection| {
                Box::pin(
                    connection
                        .transaction(move |connection| Box::pin(async move { deploy(connection, &deployment).await })),
                )
            })
            .await?;
        self.work.notify_one();
        Ok(version)
    }

    async fn functions(&self) -> Result<Vec<FunctionRecord>, Error> {
        let rows = self.readers.fetch_all(FUNCTIONS).await.map_err(classify)?;
        rows.iter()
            .map(|row| {
                let contract = Contract::parse(row.get(4)).ok_or_else(|| Error::Broken("unknown contract".into()))?;
                let active = VersionRecord {
                    version: row.get(1),
                    digest: row.get(2),
                    manifest: row.get(3),
                    contract,
                    label: row.get(5),
                    created_at: Timestamp(row.get(6)),
                };
                Ok(FunctionRecord { name: row.get(0), active })
            })
            .collect()
    }

    async fn component(&self, digest: &str) -> Result<Option<Vec<u8>>, Error> {
        sqlx::query_scalar(BYTES).bind(digest).fetch_optional(&self.readers).await.map_err(classify)
    }
}

async fn deploy(connection: &mut Connection, deployment: &Deployment) -> Result<i64, Error> {
    let other = sqlx::query_scalar(OTHER_APP).bind(&deployment.function).bind(&deployment.app);
    if let Some(other) = other.fetch_optional(&mut connection.sql).await.map_err(classify)? {
        let (other, app): (String, _) = (other, &deployment.app);
        return Err(Error::Refused(format!(
            "app = \"{app}\": the database of this host holds the app \"{other}\", and can hold one; deploy to a host with \
             another database, or use the same app"
        )));
    }
    for (name, text) in &deployment.migrations {
        apply_migration(connection, deployment, name, text).await?;
    }
    let function = &deployment.function;
    let same = sqlx::query_scalar(SAME)
        .bind(function)
        .bind(&deployment.digest)
        .bind(&deployment.manifest)
        .bind(deployment.contract.as_str());
    if let Some(version) = same.fetch_optional(&mut connection.sql).await.map_err(classify)? {
        return Ok(version);
    }
    let now = connection.clock.now();
    let component = sqlx::query(COMPONENT).bind(&deployment.digest).bind(&deployment.component);
    component.execute(&mut connection.sql).await.map_err(classify)?;
    let version = sqlx::query_scalar(VERSION)
        .bind(function)
        .bind(&deployment.digest)
        .bind(&deployment.manifest)
        .bind(deployment.contract.as_str())
        .bind(&deployment.label)
        .bind(now.0);
    let version: i64 = version.fetch_one(&mut connection.sql).await.map_err(classify)?;
    sqlx::query(ACTIVATE)
        .bind(function)
        .bind(&deployment.app)
        .bind(version)
        .execute(&mut connection.sql)
        .await
        .map_err(classify)?;
    sqlx::query(UNSUBSCRIBE).bind(function).execute(&mut connection.sql).await.map_err(classify)?;
    for topic in &deployment.topics {
        sqlx::query(SUBSCRIBE).bind(topic).bind(function).execute(&mut connection.sql).await.map_err(classify)?;
    }
    Ok(version)
}

/// The engine's part of the schema, as text.
async fn engine_schema(connection: &mut Connection) -> Result<String, Error> {
    sqlx::query_scalar(ENGINE_SCHEMA).fetch_one(&mut connection.sql).await.map_err(classify)
}

/// Applies one app migration unless it was applied before; one that has changed since is refused.
async fn apply_migration(connection: &mut Connection, of: &Deployment, name: &str, text: &str) -> Result<(), Error> {
    let refused = |why: String| Error::Refused(format!("migration {name}: {why}"));
    let checksum = hex::encode(Sha256::digest(text));
    let find = sqlx::query(MIGRATION_FIND).bind(&of.app).bind(name);
    if let Some(known) = find.fetch_optional(&mut connection.sql).await.map_err(classify)? {
        if known.get::<&str, _>(0) == checksum {
            return Ok(());
        }
        let (app, by) = (&of.app, known.get::<&str, _>(1));
        return Err(refused(format!(
            "the app \"{app}\" has applied a file of this name with another text (for the function \"{by}\"); leave that \
             one as it was, and give a new migration a name of its own with a higher number"
        )));
    }
    gate::check_text(text).map_err(&refused)?;
    // The authorizer lets pass tables, indexes and data of the app, and nothing else.
    let before = engine_schema(connection).await?;
    connection.walls.set_deadline(Some(Instant::now() + LONGEST_MIGRATION));
    connection.walls.was_denied();
    connection.walls.set_mode(Mode::Migration);
    let applied = sqlx::raw_sql(sqlx::AssertSqlSafe(text)).execute(&mut connection.sql).await;
    connection.walls.set_mode(Mode::Host);
    connection.walls.set_deadline(None);
    let denied = connection.walls.was_denied();
    applied.map_err(|error| match error {
        sqlx::Error::Database(_) if denied => refused(
            "it may only make tables, indexes and rows of the app (no triggers, views, PRAGMA, or transactions)".into(),
        ),
        sqlx::Error::Database(database) => refused(database.message().into()),
        error => classify(error),
    })?;
    connection.ensure_in_transaction().await.map_err(|_| refused("it ended the transaction".into()))?;
    if engine_schema(connection).await? != before {
        return Err(refused("it changed the engine's tables; names that begin with semel_ are the engine's".into()));
    }
    let now = connection.clock.now();
    let record = sqlx::query(MIGRATION_RECORD).bind(&of.app).bind(name).bind(&of.function).bind(checksum).bind(now.0);
    record.execute(&mut connection.sql).await.map_err(classify)?;
    Ok(())
}
