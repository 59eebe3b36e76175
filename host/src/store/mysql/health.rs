//! What `semel doctor` says of the server and the database; the walls around each app's login stand in `walls.rs`.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sqlx::Row;
use sqlx::mysql::MySqlRow;

use super::{Error, Mysql, READING_SESSIONS, classify, connection, guests, schema};
use crate::store::Fact;

const CHECK: &str = include_str!("check.sql");
const CHECK_UNDO: &str = include_str!("check_undo.sql");
const SERVER: &str = include_str!("server.sql");

/// More between the clocks of host and server confuses who reads logs.
const CLOCKS_APART: Duration = Duration::from_secs(5);
/// What a server takes that nobody set otherwise.
const USUAL_PACKET: i64 = 16 << 20;

impl Mysql {
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
            Fact::new("database", self.server.name(), self.server.version.clone(), None),
            schema_fact(row.get("schema")),
            flush_log(&row),
            binary_log(&row),
            doublewrite(&row),
            Fact::new("database", "innodb_rollback_on_timeout", row.get::<String, _>("rollback_on_timeout"), None),
            self.packet(row.get("packet")),
            sessions(row.get("connections"), row.get("sessions")),
            clocks(row.get("now")),
            Fact::new("database", "size", format!("{} MiB", row.get::<i64, _>("size") >> 20), None),
        ];
        facts.extend(self.walls().await?);
        Ok(facts)
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

    /// What is longer, no statement can say: a message with such a body is refused.
    fn packet(&self, bytes: i64) -> Fact {
        let value = format!("{} MiB; bodies up to {} MiB", bytes >> 20, self.server.largest_body() >> 20);
        let advice = (bytes < USUAL_PACKET)
            .then(|| "larger messages are refused: set max_allowed_packet = 16M or more on the server".to_owned());
        Fact::new("database", "max_allowed_packet", value, advice)
    }
}

fn schema_fact(found: i64) -> Fact {
    let other = usize::try_from(found).ok() != Some(schema::VERSION);
    let advice = other.then(|| "restart the hosts with one version of semel".to_owned());
    Fact::new("database", "schema version", found.to_string(), advice)
}

fn flush_log(row: &MySqlRow) -> Fact {
    let value: String = row.get("flush_log");
    let advice = (value != "1").then(|| {
        "an acknowledged message may be lost at a power loss: set innodb_flush_log_at_trx_commit = 1 on the server"
            .into()
    });
    Fact::new("database", "innodb_flush_log_at_trx_commit", value, advice)
}

fn binary_log(row: &MySqlRow) -> Fact {
    let (on, sync): (i64, i64) = (row.get("log_bin"), row.get("sync_binlog"));
    let value = if on == 0 { "off".to_owned() } else { format!("on, sync_binlog = {sync}") };
    let advice = (on != 0 && sync != 1).then(|| {
        "after a power loss replicas and backups may miss acknowledged messages: set sync_binlog = 1 on the server"
            .into()
    });
    Fact::new("database", "binary log", value, advice)
}

fn doublewrite(row: &MySqlRow) -> Fact {
    let value: String = row.get("doublewrite");
    let off = matches!(value.as_str(), "0" | "OFF" | "DETECT_ONLY");
    let advice =
        off.then(|| "a power loss may damage the database: set innodb_doublewrite = ON on the server".to_owned());
    Fact::new("database", "innodb_doublewrite", value, advice)
}

/// Whether there is room for one more host.
fn sessions(room: i64, used: i64) -> Fact {
    let host = i64::from(READING_SESSIONS) + i64::try_from(connection::SESSIONS + guests::SESSIONS).unwrap_or(i64::MAX);
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
