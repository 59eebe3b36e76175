//! How guests get into the database: by a login of their app's own, which the engine made (`roles.rs`) or a person did
//! (`[apps.NAME]`), or else by the engine's.

use sqlx::{Executor, Row};

use super::connection::Engine;
use super::roles::{self, Names};
use super::{Error, classify};
use crate::store::{AppLogins, Login, Logins};

const WHO: &str = "SELECT current_user::text, current_database()::text, (SELECT rolcreaterole OR rolsuper FROM \
                   pg_catalog.pg_roles WHERE rolname = current_user)";
const RECORDED: &str = "SELECT login FROM semel.apps WHERE app = $1";
const APPS: &str = include_str!("apps.sql");

pub(super) struct Access {
    pub(super) secret: [u8; 32],
    pub(super) engine: String,
    pub(super) database: String,
    /// Whether the engine's login may make roles.
    pub(super) makes_roles: bool,
    given: Logins,
}

/// Who runs an app's migrations.
pub(super) enum Owner {
    /// A role of ours, let in for a moment.
    Ours(Login),
    Given(Login),
    /// One login for all.
    Engine,
    /// Nobody whom this host knows; the text says what to do.
    Nobody(&'static str),
}

/// An app that is known here.
pub(super) struct OnRecord {
    pub(super) app: String,
    /// The engine's own, if the app has none.
    pub(super) login: String,
    exists: bool,
}

impl Access {
    pub(super) async fn new(engine: &Engine, secret: [u8; 32], given: Logins) -> Result<Self, Error> {
        let who = engine.run(|connection| {
            Box::pin(async move { sqlx::query_as(WHO).fetch_one(connection).await.map_err(classify) })
        });
        let (engine, database, makes_roles): (String, String, bool) = who.await?;
        if !makes_roles {
            tracing::warn!(
                "the database login may not create roles: apps without a login in [apps] run as the engine's own, with \
                 fewer walls; see semel doctor"
            );
        }
        Ok(Self { secret, engine, database, makes_roles, given })
    }

    fn names(&self, app: &str) -> Names {
        roles::names(&self.database, app)
    }

    fn ours(&self, name: String) -> Login {
        Login { password: roles::password(&self.secret, &name), name }
    }

    /// Whose session the guests of an app have, where the database has `recorded` a login for it. None: the engine's.
    pub(super) fn login(&self, app: &str, recorded: Option<String>) -> Result<Option<Login>, Error> {
        match (self.given.get(app), recorded) {
            (Some(given), Some(recorded)) if given.login.name != recorded => Err(Error::Refused(format!(
                "[apps.{app}] names another login here than on the host that started last, which says {recorded}"
            ))),
            (Some(given), _) => Ok(Some(given.login.clone())),
            (None, Some(recorded)) if recorded == self.names(app).login => Ok(Some(self.ours(recorded))),
            (None, Some(recorded)) => Err(by_hand(app, &recorded)),
            (None, None) => Ok(None),
        }
    }

    /// The name of the login that a person made for the guests of an app.
    pub(super) fn given_login(&self, app: &str) -> Option<&str> {
        self.given.get(app).map(|given| given.login.name.as_str())
    }

    /// The apps that were ever deployed or prepared.
    pub(super) async fn known(&self, engine: &Engine) -> Result<Vec<OnRecord>, Error> {
        let find = engine.run(|connection| {
            Box::pin(async move {
                let rows = connection.fetch_all(APPS).await.map_err(classify)?;
                let known =
                    |row: &sqlx::postgres::PgRow| OnRecord { app: row.get(0), login: row.get(1), exists: row.get(2) };
                Ok(rows.iter().map(known).collect())
            })
        });
        find.await
    }

    /// Makes right what is not as it should be with the apps that are there: roles that were lost in a restore, or could not
    /// be made before. What cannot be mended is said; then that app's messages wait.
    pub(super) async fn mend(&self, engine: &Engine) -> Result<(), Error> {
        for OnRecord { app, login, exists } in self.known(engine).await? {
            let right = exists && login == self.names(&app).login;
            if (self.given.contains_key(&app) || (self.makes_roles && !right))
                && let Err(error) = self.prepare(engine, &app).await
            {
                tracing::error!(app, %error, "the app's login is not as it should be; its messages wait");
            }
        }
        Ok(())
    }

    /// Makes the login and the schema of an app, or brings them up to date. Returns who runs its migrations.
    pub(super) async fn prepare(&self, engine: &Engine, app: &str) -> Result<Owner, Error> {
        roles::check(app)?;
        if let Some(given) = self.given.get(app) {
            return self.adopt(engine, app, given).await;
        }
        let names = self.names(app);
        if let Some(login) = recorded(engine, app).await? {
            if !is_ours(&login, app) {
                return Err(by_hand(app, &login));
            }
            if !self.makes_roles {
                return Ok(Owner::Nobody(
                    "the engine's login may no longer create roles: give it CREATEROLE again, or name an owner under \
                     [apps] in semel.toml",
                ));
            }
        }
        if !self.makes_roles {
            roles::make_schema(engine, app).await?;
            return Ok(Owner::Engine);
        }
        if [&names.login, &names.owner].contains(&&self.engine) {
            return Err(Error::Refused(format!("app = \"{app}\" cannot be: its login is the engine's own")));
        }
        let login = self.ours(names.login);
        roles::make(engine, self, app, &login, &names.owner).await?;
        Ok(Owner::Ours(self.ours(names.owner)))
    }

    async fn adopt(&self, engine: &Engine, app: &str, given: &AppLogins) -> Result<Owner, Error> {
        let owner = given.owner.as_ref().map(|owner| owner.name.as_str());
        if given.login.name == self.engine || owner == Some(self.engine.as_str()) {
            return Err(Error::Refused(format!(
                "[apps.{app}] names the engine's own login: give the app one of its own"
            )));
        }
        roles::adopt(engine, self, app, &given.login.name, owner).await?;
        Ok(given.owner.clone().map_or(
            Owner::Nobody("[apps] names no owner for this app: name one, or apply and record its migrations elsewhere"),
            Owner::Given,
        ))
    }
}

fn by_hand(app: &str, login: &str) -> Error {
    Error::Refused(format!(
        "the login {login} of the app \"{app}\" was made by a person: name it under [apps.{app}] in the semel.toml of this \
         host as well"
    ))
}

/// Whether a name is one of those that the engine gives, maybe in the database that this one was restored from.
fn is_ours(login: &str, app: &str) -> bool {
    login.starts_with("semel.") && login.ends_with(&format!(".{app}"))
}

async fn recorded(engine: &Engine, app: &str) -> Result<Option<String>, Error> {
    let app = app.to_owned();
    let find = engine.run(move |connection| {
        Box::pin(
            async move { sqlx::query_scalar(RECORDED).bind(app).fetch_optional(connection).await.map_err(classify) },
        )
    });
    find.await
}
