//! App migrations: run in a session of the app's owner, which is no engine's session at any moment. What changes a table commits
//! by itself, so each statement is on record as soon as it is done, and a migration that failed goes on where it failed. Of one
//! app they come one by one, whoever deploys.

use std::time::{Duration, Instant};

use rand::random;
use sha2::{Digest, Sha256};
use sqlx::mysql::MySqlConnection;
use sqlx::{AssertSqlSafe, Connection, Row};

use super::access::Owner;
use super::running::{self, Backend};
use super::{Error, Mysql, classify, guests, roles, statements};
use crate::store::Activation;

const FIND: &str = include_str!("app_migration_find.sql");
const BEGIN: &str = include_str!("app_migration_begin.sql");
const HAS_TURN: &str = include_str!("app_migration_turn.sql");
const END: &str = include_str!("app_migration_end.sql");
const STEPS: &str = include_str!("app_migration_steps.sql");
const STEP: &str = include_str!("app_migration_step.sql");
const RECORD: &str = include_str!("app_migration_record.sql");
const FORGET: &str = include_str!("app_migration_forget.sql");
const FOREIGN_TABLES: &str = include_str!("foreign_tables.sql");
/// It must not wait long for a lock: everybody who comes later waits behind it.
const SETTINGS: &str = "SET SESSION autocommit = 1, lock_wait_timeout = 10, innodb_lock_wait_timeout = 10, \
                        default_storage_engine = InnoDB";

/// How long one statement may take.
const LONGEST: Duration = Duration::from_secs(60);
/// How long a deploy waits for another one's migrations.
const TURN: Duration = Duration::from_secs(150);

/// A migration that may be new.
struct Migration<'a> {
    name: &'a str,
    text: &'a str,
    checksum: String,
}

impl Mysql {
    /// Applies what is new of an app's migrations, in order. Returns the names. What was applied stays if a later one fails.
    pub(super) async fn migrate_app(
        &self,
        of: &Activation,
        owner: &Owner,
        migrations: &[(String, String)],
    ) -> Result<Vec<String>, Error> {
        let mut names = Vec::new();
        for (name, text) in migrations {
            let migration = Migration { name, text, checksum: hex::encode(Sha256::digest(text)) };
            if !self.is_new(of, &migration).await? {
                continue;
            }
            let taker: [u8; 16] = random();
            self.take_turn(of, name, taker).await?;
            let new = self.is_new(of, &migration).await; // Somebody else may have been faster.
            let applied = match new {
                Ok(true) => self.apply(of, owner, &migration).await.map(|()| names.push(name.clone())),
                new => new.map(drop),
            };
            self.end_turn(of, taker).await?;
            applied?;
        }
        self.refuse_foreign_tables(&of.app).await?;
        Ok(names)
    }

    /// False if it was applied before; one that has changed since is refused.
    async fn is_new(&self, of: &Activation, migration: &Migration<'_>) -> Result<bool, Error> {
        let find = sqlx::query(FIND).bind(&of.app).bind(migration.name).fetch_optional(&self.readers);
        let Some(known) = find.await.map_err(classify)? else { return Ok(true) };
        if known.get::<&str, _>(0) == migration.checksum {
            return Ok(false);
        }
        let (app, by) = (&of.app, known.get::<&str, _>(1));
        Err(refused(
            migration.name,
            &format!(
                "the app \"{app}\" has applied a file of this name with another text (for the function \"{by}\"); leave \
                 that one as it was, and give a new migration a name of its own with a higher number"
            ),
        ))
    }

    async fn take_turn(&self, of: &Activation, name: &str, taker: [u8; 16]) -> Result<(), Error> {
        let until = Instant::now() + TURN;
        loop {
            let app = of.app.clone();
            let begin = self.engine.run(move |connection| {
                Box::pin(async move {
                    let begin = sqlx::query(BEGIN).bind(&app).bind(&taker[..]);
                    begin.execute(&mut *connection).await.map_err(classify)?;
                    let turn = sqlx::query(HAS_TURN).bind(app).bind(&taker[..]).fetch_optional(connection);
                    Ok(turn.await.map_err(classify)?.is_some())
                })
            });
            if begin.await? {
                return Ok(());
            }
            if Instant::now() > until {
                return Err(refused(name, "another deploy is busy with this app's migrations; try again"));
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    async fn end_turn(&self, of: &Activation, taker: [u8; 16]) -> Result<(), Error> {
        let app = of.app.clone();
        let end = self.engine.run(move |connection| {
            Box::pin(async move {
                let end = sqlx::query(END).bind(app).bind(&taker[..]);
                end.execute(connection).await.map(drop).map_err(classify)
            })
        });
        end.await
    }

    async fn apply(&self, of: &Activation, owner: &Owner, migration: &Migration<'_>) -> Result<(), Error> {
        let name = migration.name;
        let all = statements::split(migration.text).map_err(|why| refused(name, &why))?;
        let steps = sqlx::query_scalar(STEPS).bind(&of.app).bind(name).fetch_all(&self.readers);
        let done: Vec<String> = steps.await.map_err(classify)?;
        let same = done.iter().zip(&all).all(|(done, statement)| *done == digest(statement));
        if !same || done.len() > all.len() {
            return Err(refused(
                name,
                &format!(
                    "its first {} statements are applied, since each commits by itself, and they are others now; leave \
                     them as they were, and change only what comes after them",
                    done.len()
                ),
            ));
        }
        if done.len() < all.len() {
            let mut session = self.owner_session(of, owner, name).await?;
            let settings = sqlx::raw_sql(SETTINGS).execute(&mut session.connection).await;
            settings.map_err(classify)?;
            for (step, statement) in all.iter().enumerate().skip(done.len()) {
                session = self.run_step(session, name, (step, all.len()), statement).await?;
                self.record_step(of, name, step, digest(statement)).await?;
            }
            let _ = session.connection.close().await; // It has done its part.
        }
        self.record(of, migration).await
    }

    /// In a task of its own; ended by the server if it takes too long.
    async fn run_step(
        &self,
        mut session: guests::Seat,
        name: &str,
        (step, of): (usize, usize),
        statement: &str,
    ) -> Result<guests::Seat, Error> {
        let (process, text) = (session.process, statement.to_owned());
        let mut work = tokio::spawn(async move {
            let done = say(&mut session.connection, text).await;
            done.map(|()| session)
        });
        let done = match tokio::time::timeout(LONGEST, &mut work).await {
            Ok(done) => done,
            Err(_) => {
                running::terminate(&self.engine, Backend { process }).await?;
                work.await
            }
        };
        let told = |error: sqlx::Error| match error {
            sqlx::Error::Database(database) => refused(
                name,
                &format!(
                    "statement {} of {of}: {}. What comes before it is applied; mend it and deploy again, and it goes on \
                     from there",
                    step + 1,
                    database.message()
                ),
            ),
            error => classify(error),
        };
        done.map_err(|e| Error::Broken(format!("a migration failed: {e}")))?.map_err(told)
    }

    async fn record_step(&self, of: &Activation, name: &str, step: usize, digest: String) -> Result<(), Error> {
        let (app, name, step) = (of.app.clone(), name.to_owned(), i64::try_from(step).unwrap_or(i64::MAX));
        let record = self.engine.run(move |connection| {
            Box::pin(async move {
                let record = sqlx::query(STEP).bind(app).bind(name).bind(step).bind(digest);
                record.execute(connection).await.map(drop).map_err(classify)
            })
        });
        record.await
    }

    async fn record(&self, of: &Activation, migration: &Migration<'_>) -> Result<(), Error> {
        let (app, function) = (of.app.clone(), of.function.clone());
        let (name, checksum) = (migration.name.to_owned(), migration.checksum.clone());
        let record = self.engine.transaction(move |connection| {
            Box::pin(async move {
                let record = sqlx::query(RECORD).bind(&app).bind(&name).bind(function).bind(checksum);
                record.execute(&mut *connection).await.map_err(classify)?;
                sqlx::query(FORGET).bind(app).bind(name).execute(connection).await.map(drop).map_err(classify)
            })
        });
        record.await
    }

    /// A session of the owner of an app's tables.
    async fn owner_session(&self, of: &Activation, owner: &Owner, name: &str) -> Result<guests::Seat, Error> {
        match owner {
            Owner::Nobody(why) => Err(refused(name, why)),
            Owner::Engine => {
                tracing::warn!(app = of.app, migration = name, "runs as the engine's own login, with all its powers");
                self.guests.connect(&of.app, None).await
            }
            Owner::Ours(owner) => {
                roles::open_owner(&self.access, owner).await?;
                let session = self.guests.connect(&of.app, Some(owner)).await;
                roles::close_owner(&self.access, owner).await?; // Who is in stays in.
                session
            }
            Owner::Given(owner) => self.guests.connect(&of.app, Some(owner)).await,
        }
    }

    /// What is in other tables stays there at a rollback, so guests could leave effects without an acknowledgement.
    pub(super) async fn refuse_foreign_tables(&self, app: &str) -> Result<(), Error> {
        let foreign = self.foreign_tables(app).await?;
        if foreign.is_empty() {
            return Ok(());
        }
        Err(Error::Refused(format!(
            "the app \"{app}\" has tables that are not InnoDB, which keep what a rollback should undo: {}; make them InnoDB \
             (ALTER TABLE … ENGINE = InnoDB), or drop them",
            foreign.join(", ")
        )))
    }

    pub(super) async fn foreign_tables(&self, app: &str) -> Result<Vec<String>, Error> {
        let database = self.access.names(app).login;
        sqlx::query_scalar(FOREIGN_TABLES).bind(database).fetch_all(&self.readers).await.map_err(classify)
    }
}

fn digest(statement: &str) -> String {
    hex::encode(Sha256::digest(statement))
}

fn refused(name: &str, why: &str) -> Error {
    Error::Refused(format!("migration {name}: {why}"))
}

async fn say(connection: &mut MySqlConnection, text: String) -> Result<(), sqlx::Error> {
    // Not prepared: some statements cannot be.
    sqlx::raw_sql(AssertSqlSafe(text)).execute(connection).await.map(drop)
}
