//! Deployed functions. App migrations commit one by one (`migrate_app.rs`); then a deploy is one transaction.

use std::time::Duration;

use async_trait::async_trait;
use sqlx::mysql::{MySqlConnection, MySqlRow};
use sqlx::{Executor, Row};

use super::list::list;
use super::{Error, Mysql, classify, unsigned};
use crate::clock::Timestamp;
use crate::message::Contract;
use crate::store::{Activation, Catalog, Deployed, Deployment, FunctionRecord, VersionRecord};

const LOCK: &str = include_str!("deploy_lock.sql");
const SAME: &str = include_str!("deploy_same.sql");
const BUILT_IN: &str = include_str!("built_in.sql");
const COMPONENT: &str = include_str!("deploy_component.sql");
const VERSION: &str = include_str!("deploy_version.sql");
const SERIAL_WAS: &str = include_str!("deploy_serial_was.sql");
const LOCK_GROUPS: &str = include_str!("groups_lock_all.sql");
const ACTIVATE: &str = include_str!("deploy_activate.sql");
const VERSION_OF: &str = include_str!("deploy_version_of.sql");
const SERIAL_FIND: &str = include_str!("deploy_serial_find.sql");
const SERIAL: &str = include_str!("deploy_serial.sql");
const PARALLEL: &str = include_str!("deploy_parallel.sql");
const UNSUBSCRIBE: &str = include_str!("deploy_unsubscribe.sql");
const SUBSCRIBE: &str = include_str!("deploy_subscribe.sql");
const UNSCHEDULE: &str = include_str!("deploy_unschedule.sql");
const SCHEDULE: &str = include_str!("deploy_schedule.sql");
const MIGRATIONS_AFTER: &str = include_str!("migrations_after.sql");
const PAUSE: &str = include_str!("pause.sql");
const REMOVE: &str = include_str!("remove.sql");
const REMOVE_WAITING: &str = include_str!("remove_waiting.sql");
const VERSIONS: &str = include_str!("versions.sql");
const FUNCTIONS: &str = include_str!("functions.sql");
const BYTES: &str = include_str!("component.sql");

/// Between two looks at what is deployed, when nobody says that it changed.
const LOOK: Duration = Duration::from_secs(1);

#[async_trait]
impl Catalog for Mysql {
    fn secret(&self) -> [u8; 32] {
        self.secret
    }

    async fn deploy(&self, deployment: Deployment) -> Result<Deployed, Error> {
        let of = &deployment.activation;
        let owner = self.access.prepare(&self.engine, &of.app).await?;
        let migrations = self.migrate_app(of, &owner, &deployment.migrations).await?;
        let deploy = self.engine.transaction(move |of| Box::pin(async move { deploy(of, &deployment).await }));
        let version = deploy.await?;
        self.wake.all_deployed();
        Ok(Deployed { version, migrations })
    }

    async fn install(&self, what: &str, of: Activation) -> Result<(), Error> {
        let what = what.to_owned();
        let install = self.engine.transaction(move |connection| {
            Box::pin(async move {
                connection.execute(LOCK).await.map_err(classify)?;
                let version = sqlx::query(BUILT_IN).bind(&of.function).bind(what);
                version.execute(&mut *connection).await.map_err(classify)?;
                activate(connection, 1, &of).await
            })
        });
        install.await
    }

    async fn activate(&self, version: i64, of: Activation) -> Result<Vec<String>, Error> {
        let activate = self.engine.transaction(move |connection| {
            Box::pin(async move {
                connection.execute(LOCK).await.map_err(classify)?;
                let after = sqlx::query_scalar(MIGRATIONS_AFTER).bind(version).bind(&of.function);
                let kept = after.fetch_all(&mut *connection).await.map_err(classify)?;
                activate(connection, version, &of).await.map(|()| kept)
            })
        });
        let kept = activate.await?;
        self.wake.all_deployed();
        Ok(kept)
    }

    async fn pause(&self, function: &str, paused: bool) -> Result<bool, Error> {
        let function = function.to_owned();
        let pause = self.engine.run(move |connection| {
            Box::pin(async move {
                sqlx::query(PAUSE).bind(paused).bind(function).execute(connection).await.map_err(classify)
            })
        });
        let known = pause.await?.rows_affected() == 1;
        self.wake.all_deployed();
        Ok(known)
    }

    async fn remove(&self, function: &str) -> Result<Option<u32>, Error> {
        let function = function.to_owned();
        let remove = self.engine.transaction(move |connection| {
            Box::pin(async move {
                connection.execute(LOCK).await.map_err(classify)?;
                let remove = sqlx::query(REMOVE).bind(&function).execute(&mut *connection);
                let known = remove.await.map_err(classify)?.rows_affected() == 1;
                sqlx::query(UNSUBSCRIBE).bind(&function).execute(&mut *connection).await.map_err(classify)?;
                let unschedule = sqlx::query(UNSCHEDULE).bind(list::<&str>([])).bind(&function);
                unschedule.execute(&mut *connection).await.map_err(classify)?;
                let waiting = sqlx::query_scalar(REMOVE_WAITING).bind(function).fetch_one(connection);
                let waiting = unsigned(waiting.await.map_err(classify)?);
                Ok(known.then_some(waiting))
            })
        });
        let waiting = remove.await?;
        self.wake.all_deployed();
        Ok(waiting)
    }

    fn is_shared(&self) -> bool {
        true
    }

    async fn changed(&self) {
        self.wake.deployed(LOOK).await;
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

fn version(row: &MySqlRow) -> Result<VersionRecord, Error> {
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

/// Returns the number of the version.
async fn deploy(connection: &mut MySqlConnection, deployment: &Deployment) -> Result<i64, Error> {
    connection.execute(LOCK).await.map_err(classify)?;
    let of = &deployment.activation;
    let same = sqlx::query_scalar(SAME)
        .bind(&of.function)
        .bind(&deployment.digest)
        .bind(&deployment.manifest)
        .bind(deployment.contract.as_str());
    if let Some(version) = same.fetch_optional(&mut *connection).await.map_err(classify)? {
        return Ok(version);
    }
    let component = sqlx::query(COMPONENT).bind(&deployment.digest).bind(&deployment.component);
    component.execute(&mut *connection).await.map_err(classify)?;
    let version = sqlx::query(VERSION)
        .bind(&of.function)
        .bind(&deployment.digest)
        .bind(&deployment.manifest)
        .bind(deployment.contract.as_str())
        .bind(&deployment.label)
        .bind(&of.app)
        .bind(&of.function)
        .bind(&of.function);
    version.execute(&mut *connection).await.map_err(classify)?;
    let version = sqlx::query_scalar(VERSION_OF).bind(&of.function).fetch_one(&mut *connection);
    let version: i64 = version.await.map_err(classify)?;
    activate(connection, version, of).await?;
    Ok(version)
}

/// Makes a version the active one, and what waits of the function stand as it asks.
async fn activate(connection: &mut MySqlConnection, version: i64, of: &Activation) -> Result<(), Error> {
    let was = sqlx::query_scalar(SERIAL_WAS).bind(&of.function).fetch_optional(&mut *connection);
    let was: Option<bool> = was.await.map_err(classify)?;
    let changes = was.unwrap_or(false) != of.serial;
    if changes {
        connection.execute(LOCK_GROUPS).await.map_err(classify)?;
    }
    let activate = sqlx::query(ACTIVATE)
        .bind(&of.function)
        .bind(&of.app)
        .bind(version)
        .bind(of.serial)
        .bind(of.backlog.map(i64::from));
    activate.execute(&mut *connection).await.map_err(classify)?;
    if changes {
        order_groups(connection, of).await?;
    }
    sqlx::query(UNSUBSCRIBE).bind(&of.function).execute(&mut *connection).await.map_err(classify)?;
    for topic in &of.topics {
        let subscribe = sqlx::query(SUBSCRIBE).bind(topic).bind(&of.function);
        subscribe.execute(&mut *connection).await.map_err(classify)?;
    }
    let schedules = list(&of.schedules);
    let unschedule = sqlx::query(UNSCHEDULE).bind(&schedules).bind(&of.function);
    unschedule.execute(&mut *connection).await.map_err(classify)?;
    let schedule = sqlx::query(SCHEDULE).bind(&of.function).bind(schedules);
    schedule.execute(connection).await.map(drop).map_err(classify)
}

/// What waits stands as the version asks that becomes the active one, under the locks of all groups.
async fn order_groups(connection: &mut MySqlConnection, of: &Activation) -> Result<(), Error> {
    let order = if of.serial {
        let find = sqlx::query_scalar(SERIAL_FIND).bind(&of.function).fetch_all(&mut *connection);
        let behind: Vec<i64> = find.await.map_err(classify)?;
        sqlx::query(SERIAL).bind(list(behind))
    } else {
        sqlx::query(PARALLEL).bind(&of.function)
    };
    order.execute(connection).await.map(drop).map_err(classify)
}
