//! How guests get into the database: by a login of their app's own, which the engine made (`roles.rs`) or a person did
//! (`[apps.NAME]`), or else by the engine's.

use sqlx::Row;
use sqlx::mysql::MySqlConnectOptions;

use super::connection::Engine;
use super::roles::{self, Names};
use super::server::Server;
use super::{Error, classify};
use crate::store::{AppLogins, Login, Logins};

const WHO: &str = include_str!("who.sql");
const RECORDED: &str = "SELECT login FROM apps WHERE app = ?";
const APPS: &str = include_str!("apps.sql");

pub(super) struct Access {
    pub(super) secret: [u8; 32],
    pub(super) server: Server,
    pub(super) options: MySqlConnectOptions,
    pub(super) engine: String,
    pub(super) database: String,
    /// Whether the engine's login may make users.
    pub(super) makes_users: bool,
    /// How many sessions the server has.
    pub(super) connections: i64,
    given: Logins,
}

/// Who runs an app's migrations.
pub(super) enum Owner {
    /// A user of ours, let in for a moment.
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
    /// None: the engine's own.
    pub(super) login: Option<String>,
}

impl Access {
    pub(super) async fn new(
        engine: &Engine,
        options: MySqlConnectOptions,
        server: &Server,
        secret: [u8; 32],
        given: Logins,
    ) -> Result<Self, Error> {
        let who = engine.run(|connection| {
            Box::pin(async move { sqlx::query_as(WHO).fetch_one(connection).await.map_err(classify) })
        });
        let (engine, database, makes_users, connections): (String, String, bool, i64) = who.await?;
        if !makes_users {
            tracing::warn!(
                "the database login may not create users: apps without a login in [apps] run as the engine's own, with \
                 fewer walls; see semel doctor"
            );
        }
        Ok(Self { secret, server: server.clone(), options, engine, database, makes_users, connections, given })
    }

    pub(super) fn names(&self, app: &str) -> Names {
        roles::names(&self.database, app)
    }

    pub(super) fn ours(&self, name: String) -> Login {
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

    /// The apps that were ever deployed or prepared.
    pub(super) async fn known(&self, engine: &Engine) -> Result<Vec<OnRecord>, Error> {
        let find = engine.run(|connection| {
            Box::pin(async move {
                let rows = sqlx::query(APPS).fetch_all(connection).await.map_err(classify)?;
                Ok(rows.iter().map(|row| OnRecord { app: row.get(0), login: row.get(1) }).collect())
            })
        });
        find.await
    }

    /// Makes right what is not as it should be with the apps that are there: users that could not be made before, or that are
    /// another database's. What cannot be mended is said; then that app's messages wait. (A user that is gone is noticed when
    /// it is needed.)
    pub(super) async fn mend(&self, engine: &Engine) -> Result<(), Error> {
        for OnRecord { app, login } in self.known(engine).await? {
            let right = login.is_some_and(|login| login == self.names(&app).login);
            if (self.given.contains_key(&app) || (self.makes_users && !right))
                && let Err(error) = self.prepare(engine, &app).await
            {
                tracing::error!(app, %error, "the app's login is not as it should be; its messages wait");
            }
        }
        Ok(())
    }

    /// Makes the login and the database of an app, or brings them up to date. Returns who runs its migrations.
    pub(super) async fn prepare(&self, engine: &Engine, app: &str) -> Result<Owner, Error> {
        let names = self.names(app);
        let given = self.given.get(app);
        roles::check(&self.server, &names, app, self.makes_users && given.is_none())?;
        if let Some(given) = given {
            return self.adopt(app, given).await;
        }
        let recorded = recorded(engine, app).await?;
        if let Some(login) = &recorded {
            if !login.ends_with(&format!("_{app}")) {
                return Err(by_hand(app, login));
            }
            if !self.makes_users {
                return Ok(Owner::Nobody(
                    "the engine's login may no longer create users: give it CREATE USER again, or name an owner under \
                     [apps] in semel.toml",
                ));
            }
        }
        if !self.makes_users {
            roles::make_database(self, app).await?;
            return Ok(Owner::Engine);
        }
        if [&names.login, &names.owner].contains(&&self.engine) {
            return Err(Error::Refused(format!("app = \"{app}\" cannot be: its login is the engine's own")));
        }
        roles::make(self, app, &names, recorded.is_none_or(|login| login != names.login)).await?;
        Ok(Owner::Ours(self.ours(names.owner)))
    }

    async fn adopt(&self, app: &str, given: &AppLogins) -> Result<Owner, Error> {
        let owner = given.owner.as_ref().map(|owner| owner.name.as_str());
        if given.login.name == self.engine || owner == Some(self.engine.as_str()) {
            return Err(Error::Refused(format!(
                "[apps.{app}] names the engine's own login: give the app one of its own"
            )));
        }
        roles::adopt(self, app, &given.login.name, owner).await?;
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

async fn recorded(engine: &Engine, app: &str) -> Result<Option<String>, Error> {
    let app = app.to_owned();
    let find = engine.run(move |connection| {
        Box::pin(
            async move { sqlx::query_scalar(RECORDED).bind(app).fetch_optional(connection).await.map_err(classify) },
        )
    });
    find.await
}
