//! Deployed functions on SQLite. A deploy is one transaction: app migrations, component, version, activation.

use std::time::{Duration, Instant};

use async_trait::async_trait;
use sha2::{Digest, Sha256};
use sqlx::sqlite::SqliteRow;
use sqlx::{Executor, Row};

use super::connection::Connection;
use super::walls::Mode;
use super::{Error, Sqlite, classify, gate};
use crate::clock::Timestamp;
use crate::message::Contract;
use crate::store::{Activation, Catalog, Deployed, Deployment, FunctionRecord, VersionRecord};

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
const SERIAL: &str = include_str!("deploy_serial.sql");
const PARALLEL: &str = include_str!("deploy_parallel.sql");
const MIGRATIONS_AFTER: &str = include_str!("migrations_after.sql");
const PAUSE: &str = include_str!("pause.sql");
const REMOVE: &str = include_str!("remove.sql");
const REMOVE_WAITING: &str = include_str!("remove_waiting.sql");
const VERSIONS: &str = include_str!("versions.sql");
const FUNCTIONS: &str = include_str!("functions.sql");
const BYTES: &str = include_str!("component.sql");

/// How long one app migration may take; everything else waits for it.
const LONGEST_MIGRATION: Duration = Duration::from_secs(60);

#[async_trait]
impl Catalog for Sqlite {
    fn secret(&self) -> [u8; 32] {
        self.secret
    }

    async fn deploy(&self, deployment: Deployment) -> Result<Deployed, Error> {
        let deploy = self.transaction(move |of| Box::pin(async move { deploy(of, &deployment).await }));
        let deployed = deploy.await?;
        self.work.notify_one();
        Ok(deployed)
    }

    async fn activate(&self, version: i64, of: Activation) -> Result<Vec<String>, Error> {
        let activate = self.transaction(move |connection| {
            Box::pin(async move {
                let after = sqlx::query_scalar(MIGRATIONS_AFTER).bind(&of.function).bind(version);
                let kept = after.fetch_all(&mut connection.sql).await.map_err(classify)?;
                check_app(connection, &of).await?;
                activate(connection, version, &of).await.map(|()| kept)
            })
        });
        let kept = activate.await?;
        self.work.notify_one();
        Ok(kept)
    }

    async fn pause(&self, function: &str, paused: bool) -> Result<bool, Error> {
        let function = function.to_owned();
        let pause = self.transaction(move |connection| {
            Box::pin(async move {
                let pause = sqlx::query(PAUSE).bind(function).bind(paused);
                Ok(pause.execute(&mut connection.sql).await.map_err(classify)?.rows_affected() == 1)
            })
        });
        let known = pause.await?;
        self.work.notify_one();
        Ok(known)
    }

    async fn remove(&self, function: &str) -> Result<Option<u32>, Error> {
        let function = function.to_owned();
        self.transaction(move |connection| {
            Box::pin(async move {
                let remove = sqlx::query(REMOVE).bind(&function);
                let known = remove.execute(&mut connection.sql).await.map_err(classify)?.rows_affected() == 1;
                sqlx::query(UNSUBSCRIBE).bind(&function).execute(&mut connection.sql).await.map_err(classify)?;
                let waiting = sqlx::query_scalar(REMOVE_WAITING).bind(function).fetch_one(&mut connection.sql);
                let waiting = waiting.await.map_err(classify)?;
                Ok(known.then_some(waiting))
            })
        })
        .await
    }

    fn is_shared(&self) -> bool {
        false // The file is locked by one host.
    }

    async fn changed(&self) {
        std::future::pending().await
    }

    async fn functions(&self) -> Result<Vec<FunctionRecord>, Error> {
        let rows = self.readers.fetch_all(FUNCTIONS).await.map_err(classify)?;
        rows.iter()
            .map(|row| Ok(FunctionRecord { name: row.get(7), active: version(row)?, paused: row.get(8) }))
            .collect()
    }

    async fn versions(&self, function: &str) -> Result<Vec<VersionRecord>, Error> {
        let rows = sqlx::query(VERSIONS).bind(function).fetch_all(&self.readers).await.map_err(classify)?;
        rows.iter().map(version).collect()
    }

    async fn component(&self, digest: &str) -> Result<Option<Vec<u8>>, Error> {
        sqlx::query_scalar(BYTES).bind(digest).fetch_optional(&self.readers).await.map_err(classify)
    }
}

fn version(row: &SqliteRow) -> Result<VersionRecord, Error> {
    Ok(VersionRecord {
        version: row.get(0),
        digest: row.get(1),
        manifest: row.get(2),
        contract: Contract::parse(row.get(3)).ok_or_else(|| Error::Broken("unknown contract".into()))?,
        label: row.get(4),
        created_at: Timestamp(row.get(5)),
        previous: row.get(6),
    })
}

async fn deploy(connection: &mut Connection, deployment: &Deployment) -> Result<Deployed, Error> {
    check_app(connection, &deployment.activation).await?;
    let mut migrations = Vec::new();
    for (name, text) in &deployment.migrations {
        if apply_migration(connection, &deployment.activation, name, text).await? {
            migrations.push(name.clone());
        }
    }
    let same = sqlx::query_scalar(SAME)
        .bind(&deployment.activation.function)
        .bind(&deployment.digest)
        .bind(&deployment.manifest)
        .bind(deployment.contract.as_str());
    if let Some(version) = same.fetch_optional(&mut connection.sql).await.map_err(classify)? {
        return Ok(Deployed { version, migrations });
    }
    let now = connection.clock.now();
    let component = sqlx::query(COMPONENT).bind(&deployment.digest).bind(&deployment.component);
    component.execute(&mut connection.sql).await.map_err(classify)?;
    let version = sqlx::query_scalar(VERSION)
        .bind(&deployment.activation.function)
        .bind(&deployment.digest)
        .bind(&deployment.manifest)
        .bind(deployment.contract.as_str())
        .bind(&deployment.label)
        .bind(now.0);
    let version: i64 = version.fetch_one(&mut connection.sql).await.map_err(classify)?;
    activate(connection, version, &deployment.activation).await?;
    Ok(Deployed { version, migrations })
}

/// One file holds the tables of one app.
async fn check_app(connection: &mut Connection, Activation { function, app, .. }: &Activation) -> Result<(), Error> {
    let other = sqlx::query_scalar(OTHER_APP).bind(function).bind(app);
    let other: Option<String> = other.fetch_optional(&mut connection.sql).await.map_err(classify)?;
    let refused = |other| {
        Error::Refused(format!(
            "app = \"{app}\": the database of this host holds the app \"{other}\", and can hold one; deploy to a host with \
             another database, or use the same app"
        ))
    };
    other.map_or(Ok(()), |other| Err(refused(other)))
}

/// Makes a version the active one, and what waits of the function stand as it asks.
async fn activate(connection: &mut Connection, version: i64, of: &Activation) -> Result<(), Error> {
    let activate =
        sqlx::query(ACTIVATE).bind(&of.function).bind(&of.app).bind(version).bind(of.serial).bind(of.backlog);
    activate.execute(&mut connection.sql).await.map_err(classify)?;
    // From nothing: a removal that was broken off may have taken the head of a group.
    for order in [PARALLEL].into_iter().chain(of.serial.then_some(SERIAL)) {
        sqlx::query(order).bind(&of.function).execute(&mut connection.sql).await.map_err(classify)?;
    }
    sqlx::query(UNSUBSCRIBE).bind(&of.function).execute(&mut connection.sql).await.map_err(classify)?;
    for topic in &of.topics {
        let subscribe = sqlx::query(SUBSCRIBE).bind(topic).bind(&of.function);
        subscribe.execute(&mut connection.sql).await.map_err(classify)?;
    }
    Ok(())
}

/// The engine's part of the schema, as text.
async fn engine_schema(connection: &mut Connection) -> Result<String, Error> {
    sqlx::query_scalar(ENGINE_SCHEMA).fetch_one(&mut connection.sql).await.map_err(classify)
}

/// Applies one app migration unless it was applied before (then it returns false); one that has changed since is refused.
async fn apply_migration(connection: &mut Connection, of: &Activation, name: &str, text: &str) -> Result<bool, Error> {
    let refused = |why: String| Error::Refused(format!("migration {name}: {why}"));
    let checksum = hex::encode(Sha256::digest(text));
    let find = sqlx::query(MIGRATION_FIND).bind(&of.app).bind(name);
    if let Some(known) = find.fetch_optional(&mut connection.sql).await.map_err(classify)? {
        if known.get::<&str, _>(0) == checksum {
            return Ok(false);
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
    Ok(true)
}
