//! What `semel doctor` says of the server, the database, and the walls around each app's login.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sqlx::Row;
use sqlx::postgres::PgRow;

use super::{Error, Postgres, READING_SESSIONS, classify, connection, guests, schema};
use crate::store::Fact;

const CHECK: &str = include_str!("check.sql");
const CHECK_UNDO: &str = include_str!("check_undo.sql");
const SERVER: &str = include_str!("server.sql");
const WALLS: &str = include_str!("../../../../migrations/postgres/walls.sql");

/// More between the clocks of host and server confuses who reads logs.
const CLOCKS_APART: Duration = Duration::from_secs(5);

impl Postgres {
    /// See [`crate::store::Records::check`].
    pub(super) async fn check_write(&self) -> Result<(), Error> {
        let check = self.engine.transaction(|connection| {
            Box::pin(async move {
                for statement in [CHECK, CHECK_UNDO] {
                    sqlx::query(statement).execute(&mut *connection).await.map_err(classify)?;
                }
                Ok(())
            })
        });
        check.await
    }

    /// All that there is to say.
    pub(super) async fn facts(&self) -> Result<Vec<Fact>, Error> {
        let row = sqlx::query(SERVER).fetch_one(&self.readers).await.map_err(classify)?;
        let mut facts = vec![
            Fact::new("database", "Postgres", row.get::<String, _>("version"), None),
            schema_fact(row.get("schema")),
            on(&row, "fsync", "an acknowledged message may be lost at a power loss"),
            on(&row, "full_page_writes", "a power loss may damage the database"),
            prepared(row.get("prepared")),
            sessions(row.get("connections"), row.get("sessions")),
            clocks(row.get("now")),
            Fact::new("database", "size", row.get::<String, _>("size"), None),
        ];
        facts.extend(self.walls().await?);
        Ok(facts)
    }

    /// The walls around each app that is known; those that all share once.
    pub(super) async fn walls(&self) -> Result<Vec<Fact>, Error> {
        let (mut of_apps, mut shared) = (Vec::new(), Vec::new());
        for known in self.access.known(&self.engine).await? {
            let walls = sqlx::query(WALLS).bind(&known.login).bind(&known.app).fetch_all(&self.readers);
            let rows = walls.await.map_err(classify)?;
            shared.clear();
            for row in &rows {
                let name: &str = row.get("name");
                if row.get("shared") {
                    shared.push(wall(name.to_owned(), row));
                } else {
                    of_apps.push(wall(format!("{}: {name}", known.app), row));
                }
            }
        }
        shared.append(&mut of_apps);
        Ok(shared)
    }

    /// Tells the log which walls do not stand, once, at start.
    pub(super) async fn say_what_is_open(&self) -> Result<(), Error> {
        let walls = self.walls().await?;
        let open: Vec<_> = walls.iter().filter(|wall| wall.advice.is_some()).map(|wall| wall.name.as_str()).collect();
        if !open.is_empty() {
            tracing::warn!(open = open.join(", "), "walls around guests are open; semel doctor says what to do");
        }
        Ok(())
    }

    pub(super) async fn schema_fact(&self) -> Result<Fact, Error> {
        let row = sqlx::query(SERVER).fetch_one(&self.readers).await.map_err(classify)?;
        Ok(schema_fact(row.get("schema")))
    }
}

fn wall(name: String, row: &PgRow) -> Fact {
    let stands: bool = row.get("stands");
    Fact::new("wall", name, if stands { "stands" } else { "is open" }, row.get("open"))
}

fn schema_fact(found: i64) -> Fact {
    let other = usize::try_from(found).ok() != Some(schema::VERSION);
    let advice = other.then(|| "restart the hosts with one version of semel".to_owned());
    Fact::new("database", "schema version", found.to_string(), advice)
}

fn on(row: &PgRow, setting: &'static str, else_what: &str) -> Fact {
    let value: String = row.get(setting);
    let advice = (value != "on").then(|| format!("{else_what}: set {setting} = on on the server"));
    Fact::new("database", setting, value, advice)
}

fn prepared(most: i64) -> Fact {
    let advice = "a transaction could be detached from its session and hold its locks for ever: set \
                  max_prepared_transactions = 0 on the server, unless others need it";
    Fact::new("database", "max_prepared_transactions", most.to_string(), (most != 0).then(|| advice.into()))
}

/// Whether there is room for one more host.
fn sessions(room: i64, used: i64) -> Fact {
    let host =
        i64::from(READING_SESSIONS) + i64::try_from(connection::SESSIONS + guests::SESSIONS).unwrap_or(i64::MAX) + 1;
    let value = format!("{used} of {room}; a host takes up to {host}");
    let advice =
        (room < host).then(|| "there is no room for a busy host: set max_connections higher on the server".into());
    Fact::new("database", "sessions", value, advice)
}

/// Nothing depends on the host's clock; who compares its log with the database does.
fn clocks(server: i64) -> Fact {
    let server = UNIX_EPOCH + Duration::from_micros(u64::try_from(server).unwrap_or(0));
    let now = SystemTime::now();
    let apart = now.duration_since(server).or_else(|_| server.duration_since(now)).unwrap_or(Duration::MAX);
    let advice = (apart > CLOCKS_APART)
        .then(|| "the clocks of host and server differ: set both by NTP (only the server's is used for leases)".into());
    Fact::new("database", "clock difference", format!("{} ms", apart.as_millis()), advice)
}
