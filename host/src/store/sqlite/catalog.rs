//! Deployed functions on SQLite. A deploy is one transaction: app migrations, component, version, activation.

use std::time::{Duration, Instant};

use async_trait::async_trait;
use sha2::{Digest, Sha256};
use sqlx::sqlite::SqliteRow;
use sqlx::{Executor, Row};

use super::connection::Connection;
use super::walls::Mode;
use super::{Error, Sqlite, classify, gate, guest_sql, json};
use crate::clock::Timestamp;
use crate::message::Contract;
use crate::store::{Activation, Catalog, Deployed, Deployment, FunctionRecord, VersionRecord};

const OTHER_APP: &str = include_str!("deploy_other_app.sql");
const SAME: &str = include_str!("deploy_same.sql");
const BUILT_IN: &str = include_str!("built_in.sql");
const COMPONENT: &str = include_str!("deploy_component.sql");
const VERSION: &str = include_str!("deploy_version.sql");
const ACTIVATE: &str = include_str!("deploy_activate.sql");
const UNSUBSCRIBE: &str = include_str!("deploy_unsubscribe.sql");
const SUBSCRIBE: &str = include_str!("deploy_subscribe.sql");
const UNSCHEDULE: &str = include_str!("deploy_unschedule.sql");
const SCHEDULE: &str = include_str!("deploy_schedule.sql");
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
        let deployed = self.transaction(move |of| deploy(of, &deployment)).await?;
        self.work.notify_one();
        Ok(deployed)
    }

    async fn install(&self, what: &str, of: Activation) -> Result<(), Error> {
        let what = what.to_owned();
        self.transaction(move |connection| {
            connection.execute(BUILT_IN, (&of.function, what, connection.clock.now().0))?;
            activate(connection, 1, &of)
        })
        .await
    }

    async fn activate(&self, version: i64, of: Activation) -> Result<Vec<String>, Error> {
        let activate = self.transaction(move |connection| {
            let kept = connection.all(MIGRATIONS_AFTER, (&of.function, version), |row| row.get(0))?;
            check_app(connection, &of)?;
            activate(connection, version, &of).map(|()| kept)
        });
        let kept = activate.await?;
        self.work.notify_one();
        Ok(kept)
    }

    async fn pause(&self, function: &str, paused: bool) -> Result<bool, Error> {
        let function = function.to_owned();
        let known = self.transaction(move |of| Ok(of.execute(PAUSE, (function, paused))? == 1)).await?;
        self.work.notify_one();
        Ok(known)
    }

    async fn remove(&self, function: &str) -> Result<Option<u32>, Error> {
        let function = function.to_owned();
        self.transaction(move |connection| {
            let known = connection.execute(REMOVE, [&function])? == 1;
            connection.execute(UNSUBSCRIBE, [&function])?;
            connection.execute(UNSCHEDULE, (&function, "[]"))?;
            let waiting = connection.one(REMOVE_WAITING, [&function], |row| row.get(0))?;
            Ok(known.then_some(waiting))
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

fn deploy(connection: &mut Connection, deployment: &Deployment) -> Result<Deployed, Error> {
    let Deployment { digest, manifest, contract, activation, .. } = deployment;
    check_app(connection, activation)?;
    let mut migrations = Vec::new();
    for (name, text) in &deployment.migrations {
        if apply_migration(connection, activation, name, text)? {
            migrations.push(name.clone());
        }
    }
    let same = (&activation.function, digest, manifest, contract.as_str());
    if let Some(version) = connection.optional(SAME, same, |row| row.get(0))? {
        return Ok(Deployed { version, migrations });
    }
    let now = connection.clock.now();
    connection.execute(COMPONENT, (digest, &deployment.component))?;
    let version = (&activation.function, digest, manifest, contract.as_str(), &deployment.label, now.0);
    let version: i64 = connection.one(VERSION, version, |row| row.get(0))?;
    activate(connection, version, activation)?;
    Ok(Deployed { version, migrations })
}

/// One file holds the tables of one app.
fn check_app(connection: &Connection, Activation { function, app, .. }: &Activation) -> Result<(), Error> {
    let other: Option<String> = connection.optional(OTHER_APP, (function, app), |row| row.get(0))?;
    let refused = |other| {
        Error::Refused(format!(
            "app = \"{app}\": the database of this host holds the app \"{other}\", and can hold one; deploy to a host with \
             another database, or use the same app"
        ))
    };
    other.map_or(Ok(()), |other| Err(refused(other)))
}

/// Makes a version the active one, and what waits of the function stand as it asks.
fn activate(connection: &Connection, version: i64, of: &Activation) -> Result<(), Error> {
    connection.execute(ACTIVATE, (&of.function, &of.app, version, of.serial, of.backlog))?;
    // From nothing: a removal that was broken off may have taken the head of a group.
    for order in [PARALLEL].into_iter().chain(of.serial.then_some(SERIAL)) {
        connection.execute(order, [&of.function])?;
    }
    connection.execute(UNSUBSCRIBE, [&of.function])?;
    for topic in &of.topics {
        connection.execute(SUBSCRIBE, (topic, &of.function))?;
    }
    let schedules = json(&of.schedules);
    connection.execute(UNSCHEDULE, (&of.function, &schedules))?;
    connection.execute(SCHEDULE, (&of.function, schedules, connection.clock.now().0))?;
    Ok(())
}

/// The engine's part of the schema, as text.
fn engine_schema(connection: &Connection) -> Result<String, Error> {
    connection.one(ENGINE_SCHEMA, (), |row| row.get(0))
}

/// Applies one app migration unless it was applied before (then it returns false); one that has changed since is refused.
fn apply_migration(connection: &mut Connection, of: &Activation, name: &str, text: &str) -> Result<bool, Error> {
    let refused = |why: String| Error::Refused(format!("migration {name}: {why}"));
    let (app, checksum) = (&of.app, hex::encode(Sha256::digest(text)));
    let known: Option<(String, String)> =
        connection.optional(MIGRATION_FIND, (app, name), |row| Ok((row.get(0)?, row.get(1)?)))?;
    match known {
        Some((known, _)) if known == checksum => return Ok(false),
        Some((_, by)) => {
            return Err(refused(format!(
                "the app \"{app}\" has applied a file of this name with another text (for the function \"{by}\"); leave \
                 that one as it was, and give a new migration a name of its own with a higher number"
            )));
        }
        None => {}
    }
    gate::check_text(text).map_err(&refused)?;
    // The authorizer lets pass tables, indexes and data of the app, and nothing else.
    let before = engine_schema(connection)?;
    connection.kept.forget(); // Also what this changes and a rollback undoes is another schema to them.
    connection.walls.set_deadline(Some(Instant::now() + LONGEST_MIGRATION));
    connection.walls.was_denied();
    connection.walls.set_mode(Mode::Migration);
    let applied = connection.sql.execute_batch(text);
    connection.walls.set_mode(Mode::Host);
    connection.walls.set_deadline(None);
    let denied = connection.walls.was_denied();
    applied.map_err(|error| {
        refused(if denied {
            "it may only make tables, indexes and rows of the app (no triggers, views, PRAGMA, or transactions)".into()
        } else {
            error.to_string()
        })
    })?;
    guest_sql::ensure_open(connection).map_err(|_| refused("it ended the transaction".into()))?;
    if engine_schema(connection)? != before {
        return Err(refused("it changed the engine's tables; names that begin with semel_ are the engine's".into()));
    }
    connection.execute(MIGRATION_RECORD, (app, name, &of.function, checksum, connection.clock.now().0))?;
    Ok(true)
}
