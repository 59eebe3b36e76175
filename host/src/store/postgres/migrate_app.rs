//! App migrations: run in a session of the app's owner, which is no engine's session at any moment, each in one commit with
//! its record (see `semel_api.migrated`). Of one app they come one by one, whoever deploys.

use std::time::{Duration, Instant};

use rand::random;
use sha2::{Digest, Sha256};
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Executor, Row};

use super::access::Owner;
use super::{Error, Postgres, classify, errors, roles, running};
use crate::store::{Activation, Login};

const FIND: &str = include_str!("app_migration_find.sql");
const BEGIN: &str = include_str!("app_migration_begin.sql");
const RECORD: &str = include_str!("app_migration_record.sql");
const END: &str = include_str!("app_migration_end.sql");
/// It must not wait long for a lock: everybody who comes later waits behind it.
const TRANSACTION: &str = "BEGIN; SET LOCAL lock_timeout = '10s'; SET LOCAL statement_timeout = '60s'";

/// How long a new session may take.
const CONNECT: Duration = Duration::from_secs(10);
/// How long one app migration may take.
const LONGEST: Duration = Duration::from_secs(60);
/// How long a deploy waits for another one's migrations.
const TURN: Duration = Duration::from_secs(150);

/// A migration that may be new.
struct Migration {
    name: String,
    text: String,
    checksum: String,
    token: [u8; 16],
}

impl Postgres {
    /// Applies what is new of an app's migrations, in order. Returns the names. What was applied stays if a later one fails.
    pub(super) async fn migrate_app(
        &self,
        of: &Activation,
        owner: &Owner,
        migrations: &[(String, String)],
    ) -> Result<Vec<String>, Error> {
        let mut names = Vec::new();
        for (name, text) in migrations {
            let checksum = hex::encode(Sha256::digest(text));
            let migration = Migration { name: name.clone(), text: text.clone(), checksum, token: random() };
            if self.has_turn(of, &migration).await? {
                let applied = self.apply(of, owner, &migration).await;
                self.forget(migration.token).await?;
                applied?;
                names.push(migration.name);
            }
        }
        Ok(names)
    }

    /// Waits for the turn to apply a migration. False if it was applied before.
    async fn has_turn(&self, of: &Activation, migration: &Migration) -> Result<bool, Error> {
        let until = Instant::now() + TURN;
        while self.is_new(of, migration).await? {
            if self.announce(of, migration).await? {
                let new = self.is_new(of, migration).await; // Somebody else may have been faster.
                if !matches!(new, Ok(true)) {
                    self.forget(migration.token).await?;
                }
                return new;
            }
            if Instant::now() > until {
                return Err(refused(&migration.name, "another deploy is busy with this app's migrations; try again"));
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Ok(false)
    }

    /// False if it was applied before; one that has changed since is refused.
    async fn is_new(&self, of: &Activation, migration: &Migration) -> Result<bool, Error> {
        let find = sqlx::query(FIND).bind(&of.app).bind(&migration.name).fetch_optional(&self.readers);
        let Some(known) = find.await.map_err(classify)? else { return Ok(true) };
        if known.get::<&str, _>(0) == migration.checksum {
            return Ok(false);
        }
        let (app, by) = (&of.app, known.get::<&str, _>(1));
        Err(refused(
            &migration.name,
            &format!(
                "the app \"{app}\" has applied a file of this name with another text (for the function \"{by}\"); leave \
                 that one as it was, and give a new migration a name of its own with a higher number"
            ),
        ))
    }

    /// False if another one of this app is under way.
    async fn announce(&self, of: &Activation, migration: &Migration) -> Result<bool, Error> {
        let (app, function) = (of.app.clone(), of.function.clone());
        let (name, checksum) = (migration.name.clone(), migration.checksum.clone());
        let hash = Sha256::digest(migration.token).to_vec();
        let begin = self.engine.run(move |connection| {
            Box::pin(async move {
                let begin = sqlx::query(BEGIN).bind(app).bind(hash).bind(name).bind(function).bind(checksum);
                begin.execute(connection).await.map_err(classify)
            })
        });
        Ok(begin.await?.rows_affected() == 1)
    }

    async fn forget(&self, token: [u8; 16]) -> Result<(), Error> {
        let end = self.engine.run(move |connection| {
            Box::pin(async move {
                let end = sqlx::query(END).bind(Sha256::digest(token).to_vec());
                end.execute(connection).await.map(drop).map_err(classify)
            })
        });
        end.await
    }

    async fn apply(&self, of: &Activation, owner: &Owner, migration: &Migration) -> Result<(), Error> {
        let mut session = self.owner_session(of, owner, &migration.name).await?;
        let process: i32 =
            sqlx::query_scalar("SELECT pg_catalog.pg_backend_pid()").fetch_one(&mut session).await.map_err(classify)?;
        let (name, text, token) = (migration.name.clone(), migration.text.clone(), migration.token);
        let mut work = tokio::spawn(async move {
            in_transaction(&mut session, &name, text, token).await?;
            let _ = session.close().await; // Dropped, and so undone, if it failed.
            Ok(())
        });
        let late = LONGEST + Duration::from_secs(1); // The server's own limit comes first, if it still stands.
        let done = match tokio::time::timeout(late, &mut work).await {
            Ok(done) => done,
            Err(_) => {
                running::terminate(&self.engine, process).await?;
                work.await
            }
        };
        done.map_err(|e| Error::Broken(format!("a migration failed: {e}")))?
    }

    /// A session of an app's own, for a login or else for the engine's.
    async fn connect(&self, app: &str, login: Option<&Login>) -> Result<PgConnection, Error> {
        // No log of what migrations say: it is the app's, and could fill it.
        let mut options = self.guests.options().clone().disable_statement_logging();
        options = options.options([("search_path", format!("\"{app}\""))]);
        if let Some(login) = login {
            options = options.username(&login.name).password(&login.password);
        }
        let late = |_| Error::Unavailable("a session takes too long to open".into());
        tokio::time::timeout(CONNECT, options.connect()).await.map_err(late)?.map_err(errors::at_owners_login)
    }

    /// A session of the owner of an app's tables.
    async fn owner_session(&self, of: &Activation, owner: &Owner, name: &str) -> Result<PgConnection, Error> {
        match owner {
            Owner::Nobody(why) => Err(refused(name, why)),
            Owner::Engine => {
                tracing::warn!(app = of.app, migration = name, "runs as the engine's own login, with all its powers");
                self.connect(&of.app, None).await
            }
            Owner::Ours(owner) => {
                roles::open_owner(&self.engine, owner).await?;
                let session = self.connect(&of.app, Some(owner)).await;
                roles::close_owner(&self.engine, owner).await?; // Who is in stays in.
                session
            }
            Owner::Given(owner) => {
                let mut session = self.connect(&of.app, Some(owner)).await?;
                let login = self.access.given_login(&of.app).unwrap_or_default();
                let rights = roles::rights_of_guests(&of.app, login, &owner.name);
                let given = sqlx::raw_sql(AssertSqlSafe(rights)).execute(&mut session).await;
                let missing = |error: sqlx::Error| {
                    let made = format!("CREATE SCHEMA \"{}\" AUTHORIZATION \"{}\"", of.app, owner.name);
                    refused(name, &format!("{error}. The owner must own the schema: {made}"))
                };
                given.map(|_| session).map_err(missing)
            }
        }
    }
}

fn refused(name: &str, why: &str) -> Error {
    Error::Refused(format!("migration {name}: {why}"))
}

async fn in_transaction(owner: &mut PgConnection, name: &str, text: String, token: [u8; 16]) -> Result<(), Error> {
    let told = |error: sqlx::Error| match error {
        sqlx::Error::Database(database) => refused(name, database.message()),
        error => classify(error),
    };
    let canary = format!("semel_{}", hex::encode(random::<[u8; 8]>()));
    let begin = format!("{TRANSACTION}; SAVEPOINT {canary}");
    sqlx::raw_sql(AssertSqlSafe(begin)).execute(&mut *owner).await.map_err(classify)?;
    sqlx::raw_sql(AssertSqlSafe(text)).execute(&mut *owner).await.map_err(told)?;
    let release = owner.execute(AssertSqlSafe(format!("RELEASE {canary}"))).await;
    release.map_err(|_| refused(name, "it ended the transaction; leave BEGIN, COMMIT and ROLLBACK out"))?;
    sqlx::query(RECORD).bind(&token[..]).execute(&mut *owner).await.map_err(told)?;
    owner.execute("COMMIT").await.map(drop).map_err(told)
}
