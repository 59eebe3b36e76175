//! `semel migrate`: everything that a host or a deploy would do by itself, done beforehand.

use super::access::Owner;
use super::{Error, Mysql};
use crate::store::{Fact, Migration};

/// See [`crate::store::migrate`].
pub(in crate::store) async fn migrate(url: &str, wanted: Migration) -> Result<Vec<Fact>, Error> {
    if wanted.superuser.is_some() {
        return Err(Error::Refused(
            "there is nothing on MariaDB or MySQL that only a superuser could close: leave --superuser out".into(),
        ));
    }
    let mut apps = wanted.apps;
    apps.extend(wanted.logins.keys().cloned());
    let store = Mysql::open(url, wanted.logins).await?;
    let mut facts = vec![store.schema_fact().await?];
    apps.extend(store.access.known(&store.engine).await?.into_iter().map(|known| known.app));
    apps.sort();
    apps.dedup();
    for app in apps {
        let migrations = match store.access.prepare(&store.engine, &app).await? {
            Owner::Ours(owner) => format!("its migrations run as {}", owner.name),
            Owner::Given(owner) => format!("its migrations run as {} ([apps.{app}])", owner.name),
            Owner::Engine => "database only: the engine's login may not create users".into(),
            Owner::Nobody(why) => why.into(),
        };
        facts.push(Fact::new("done", format!("app {app}"), migrations, None));
    }
    facts.extend(store.walls().await?);
    Ok(facts)
}
