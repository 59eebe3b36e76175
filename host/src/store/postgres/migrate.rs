//! `semel migrate`: everything that a host or a deploy would do by itself, done beforehand, and what only a superuser can.

use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Executor};

use super::access::Owner;
use super::{Error, Postgres, classify, options, roles};
use crate::store::{Fact, Migration};

const WHO: &str = "SELECT current_user::text, rolsuper, to_regclass('semel.store') IS NOT NULL FROM pg_catalog.pg_roles \
                   WHERE rolname = current_user";
const SECRET: &str = "SELECT secret FROM semel.store WHERE id = 1 FOR UPDATE";

/// See [`crate::store::migrate`].
pub(in crate::store) async fn migrate(url: &str, wanted: Migration) -> Result<Vec<Fact>, Error> {
    let mut apps = wanted.apps;
    apps.extend(wanted.logins.keys().cloned());
    let store = Postgres::open(url, wanted.logins).await?;
    let mut facts = vec![store.schema_fact().await?];
    apps.extend(store.access.known(&store.engine).await?.into_iter().map(|known| known.app));
    apps.sort();
    apps.dedup();
    for app in apps {
        let migrations = match store.access.prepare(&store.engine, &app).await? {
            Owner::Ours(owner) => format!("its migrations run as {}", owner.name),
            Owner::Given(owner) => format!("its migrations run as {} ([apps.{app}])", owner.name),
            Owner::Engine => "schema only: the engine's login may not create roles".into(),
            Owner::Nobody(why) => why.into(),
        };
        facts.push(Fact::new("done", format!("app {app}"), migrations, None));
    }
    let done = store.lock_down(wanted.superuser.as_deref().unwrap_or(url), wanted.superuser.is_some()).await?;
    facts.push(Fact::new("done", "lockdown", done, None));
    facts.extend(store.walls().await?);
    Ok(facts)
}

impl Postgres {
    /// Closes what only a superuser can, if this URL's login is one; it must be one if it was `named` as such.
    async fn lock_down(&self, url: &str, named: bool) -> Result<String, Error> {
        let mut superuser = options(url)?.connect().await.map_err(classify)?;
        let who = sqlx::query_as(WHO).fetch_one(&mut superuser).await.map_err(classify)?;
        let (name, may, is_there): (String, bool, bool) = who;
        if !may && !named {
            return Ok("left as it was: it takes --superuser".into());
        }
        if !may {
            return Err(Error::Refused(format!(
                "--superuser: {name} is no superuser; leave the option out, or name one"
            )));
        }
        if !is_there {
            return Err(Error::Refused("--superuser leads to another database than --database".into()));
        }
        superuser.execute("BEGIN").await.map_err(classify)?;
        let secret: Vec<u8> = sqlx::query_scalar(SECRET).fetch_one(&mut superuser).await.map_err(classify)?;
        if secret != self.secret {
            return Err(Error::Refused("--superuser leads to another database than --database".into()));
        }
        run(&mut superuser, roles::lockdown(&self.access.engine)).await?;
        superuser.execute("COMMIT").await.map_err(classify)?;
        let _ = superuser.close().await; // It is committed.
        Ok(format!("applied by {name}, for this database"))
    }
}

async fn run(superuser: &mut PgConnection, script: String) -> Result<(), Error> {
    sqlx::raw_sql(AssertSqlSafe(script)).execute(superuser).await.map(drop).map_err(classify)
}
