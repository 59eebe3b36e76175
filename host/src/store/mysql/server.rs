//! The two servers, where they differ.

use std::time::Duration;

use sqlx::Row;
use sqlx::mysql::MySqlConnection;

use super::{Error, classify};

const ASK: &str = "SELECT VERSION(), CAST(@@max_allowed_packet AS SIGNED)";

/// Settings of each session, the engine's and guests'. With the values of texts that the driver asks for (`||`), and none that
/// makes a backslash something else.
pub(super) const SESSION: &str = "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED; SET SESSION sql_mode = \
                                  'STRICT_TRANS_TABLES,STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION,PIPES_AS_CONCAT'";

/// The oldest that are known to have what is needed: SKIP LOCKED, JSON_TABLE, checks.
const MARIADB: (u32, u32) = (10, 6);
const MYSQL: (u32, u32) = (8, 0);

/// What of a packet is not a body: the statement, and what else it says.
const BESIDE_A_BODY: usize = 1 << 20;

/// What this server is.
#[derive(Debug, Clone)]
pub(super) struct Server {
    pub(super) mariadb: bool,
    /// In its own words.
    pub(super) version: String,
    /// The longest statement with its parameters, in bytes.
    pub(super) packet: usize,
}

impl Server {
    pub(super) async fn ask(connection: &mut MySqlConnection) -> Result<Self, Error> {
        let row = sqlx::query(ASK).fetch_one(connection).await.map_err(classify)?;
        let version: String = row.try_get(0).map_err(classify)?;
        let packet: i64 = row.try_get(1).map_err(classify)?;
        let server =
            Self { mariadb: version.contains("MariaDB"), version, packet: usize::try_from(packet).unwrap_or(0) };
        let (name, oldest) = if server.mariadb { ("MariaDB", MARIADB) } else { ("MySQL", MYSQL) };
        if numbers(&server.version).is_none_or(|found| found < oldest) {
            return Err(Error::Refused(format!(
                "the server is {} {}; Semel needs {name} {}.{} or newer",
                server.name(),
                server.version,
                oldest.0,
                oldest.1
            )));
        }
        Ok(server)
    }

    pub(super) fn name(&self) -> &'static str {
        if self.mariadb { "MariaDB" } else { "MySQL" }
    }

    /// The largest body of a message.
    pub(super) fn largest_body(&self) -> usize {
        self.packet.saturating_sub(BESIDE_A_BODY)
    }

    /// Settings of guests' sessions alone: no statement commits by itself, and recursion ends by its own end or at the deadline,
    /// not with fewer rows.
    pub(super) fn of_guests(&self) -> &'static str {
        if self.mariadb {
            "SET SESSION autocommit = 0, max_recursive_iterations = 4294967295, group_concat_max_len = 16777216"
        } else {
            "SET SESSION autocommit = 0, cte_max_recursion_depth = 4294967295, group_concat_max_len = 16777216"
        }
    }

    /// Settings of the engine's sessions alone. Subqueries are looked up row by row: by the statistics of a queue it may seem
    /// cheaper to read all of it first.
    pub(super) fn subqueries(&self) -> &'static str {
        if self.mariadb {
            "SET SESSION optimizer_switch = 'semijoin=off,materialization=off,exists_to_in=off'"
        } else {
            "SET SESSION optimizer_switch = 'semijoin=off,materialization=off'"
        }
    }

    /// Makes the server end a session that says nothing for so long in an open transaction; of MySQL's, also one that is in none.
    pub(super) fn idle_transaction(&self, longest: Duration) -> String {
        let seconds = longest.as_secs().max(1);
        let setting = if self.mariadb { "idle_transaction_timeout" } else { "wait_timeout" };
        format!("SET SESSION {setting} = {seconds}")
    }
}

/// Of `10.11.6-MariaDB`, and of `5.5.5-10.11.6-MariaDB`, which proxies say.
fn numbers(version: &str) -> Option<(u32, u32)> {
    let mut parts = version.strip_prefix("5.5.5-").unwrap_or(version).split(['.', '-']);
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::numbers;

    #[test]
    fn versions_as_servers_say_them() {
        assert_eq!(numbers("10.11.6-MariaDB-0+deb12u1"), Some((10, 11)));
        assert_eq!(numbers("5.5.5-10.6.3-MariaDB"), Some((10, 6)));
        assert_eq!(numbers("8.0.36"), Some((8, 0)));
        assert_eq!(numbers("new"), None);
    }
}
