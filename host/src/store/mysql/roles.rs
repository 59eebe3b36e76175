//! The users and the database of an app: a login without powers for its guests, an owner for its tables. Their passwords are
//! derived from the installation's secret, so that all hosts know them and nobody keeps them.
//!
//! Each statement commits by itself, and can be said again. They are said on a connection of their own, whose statements no
//! log of this host shows.

use std::time::Duration;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use sqlx::mysql::{MySqlConnectOptions, MySqlConnection};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection};
use tokio::time::timeout;

use super::access::Access;
use super::server::{self, Server};
use super::{Error, classify};
use crate::store::Login;

const APP_DATABASE: &str = include_str!("../../../../migrations/mysql/app_database.sql");
const APP_USERS: &str = include_str!("../../../../migrations/mysql/app_users.sql");
const APP_CLEAR: &str = include_str!("../../../../migrations/mysql/app_clear.sql");
const APP_GRANTS: &str = include_str!("../../../../migrations/mysql/app_grants.sql");
const OWNER_OPEN: &str = include_str!("../../../../migrations/mysql/owner_open.sql");
const OWNER_CLOSE: &str = include_str!("../../../../migrations/mysql/owner_close.sql");
const RECORD: &str = include_str!("app_record.sql");

/// Longest name of a database, and of a user, which MySQL keeps shorter than MariaDB.
const LONGEST_DATABASE: usize = 64;
const LONGEST_USER: [usize; 2] = [32, 80];
/// How long all statements for one app may take.
const LONGEST: Duration = Duration::from_secs(30);

/// What an app is called at the server: names belong to the whole server, so the engine's database is in them.
#[derive(Debug, Clone)]
pub(super) struct Names {
    /// Its database, and the login of its guests.
    pub(super) login: String,
    /// The owner of its tables.
    pub(super) owner: String,
}

pub(super) fn names(database: &str, app: &str) -> Names {
    let login = format!("{database}_{app}");
    Names { owner: format!("{login}_own"), login }
}

/// The password of a user: as good as the secret itself. With a letter of each kind, for a server that insists.
pub(super) fn password(secret: &[u8; 32], user: &str) -> String {
    let mac = <Hmac<Sha256> as KeyInit>::new_from_slice(secret);
    let mut mac = mac.unwrap_or_else(|_| unreachable!("any length is a key"));
    [b"semel password of ", user.as_bytes()].into_iter().for_each(|part| mac.update(part));
    format!("aA1-{}", hex::encode(mac.finalize().into_bytes()))
}

/// Whether there can be an app of this name.
pub(super) fn check(server: &Server, names: &Names, app: &str, users: bool) -> Result<(), Error> {
    let longest = LONGEST_USER[usize::from(server.mariadb)];
    let (user, database) = (names.owner.chars().count(), names.login.chars().count());
    if app == "semel" || database > LONGEST_DATABASE || (users && user > longest) {
        return Err(Error::Refused(format!(
            "app = \"{app}\" cannot be: the name is reserved, or the names of its users ({}) are longer than the {longest} \
             characters that {} allows",
            names.owner,
            server.name()
        )));
    }
    Ok(())
}

/// Makes the database of an app, and its users (`new` ones have none of the rights that they may have had), or brings them up to
/// date.
pub(super) async fn make(access: &Access, app: &str, names: &Names, new: bool) -> Result<(), Error> {
    let (password, owner_password) = (password(&access.secret, &names.login), password(&access.secret, &names.owner));
    let connections = (access.connections * 3 / 4).max(1).to_string();
    let time = if access.server.mariadb { " MAX_STATEMENT_TIME 300" } else { "" };
    let script = fill(
        &[APP_DATABASE.trim_end(), ";\n", APP_USERS, if new { APP_CLEAR } else { "" }, APP_GRANTS].concat(),
        &[
            ("database", &identifier(&names.login)),
            ("pattern", &pattern(&names.login)),
            ("login", &literal(&names.login)),
            ("owner", &literal(&names.owner)),
            ("password", &literal(&password)),
            ("owner_password", &literal(&owner_password)),
            ("connections", &connections),
            ("time", time),
            ("engine", &identifier(&access.database)),
        ],
    );
    let made = alter(access, script, Some((app, &names.login, Some(&names.owner))));
    made.await
        .map_err(|error| not_allowed(error, &format!("the users or the database of the app \"{app}\" cannot be made")))
}

/// Takes users into use that a person has made.
pub(super) async fn adopt(access: &Access, app: &str, login: &str, owner: Option<&str>) -> Result<(), Error> {
    let names = access.names(app);
    let script = fill(
        &[APP_DATABASE.trim_end(), ";\n", APP_GRANTS].concat(),
        &[
            ("database", &identifier(&names.login)),
            ("pattern", &pattern(&names.login)),
            ("login", &literal(login)),
            ("engine", &identifier(&access.database)),
        ],
    );
    let adopted = alter(access, script, Some((app, login, owner))).await;
    adopted.map_err(|error| not_allowed(error, &format!("[apps.{app}]")))
}

/// The database alone, where there is one login for all.
pub(super) async fn make_database(access: &Access, app: &str) -> Result<(), Error> {
    let script = fill(APP_DATABASE, &[("database", &identifier(&access.names(app).login))]);
    let made = alter(access, script, None).await;
    made.map_err(|error| not_allowed(error, &format!("the database of the app \"{app}\" cannot be made")))
}

/// Lets the owner of an app log in for a while.
pub(super) async fn open_owner(access: &Access, owner: &Login) -> Result<(), Error> {
    let (name, password) = (literal(&owner.name), literal(&owner.password));
    alter(access, fill(OWNER_OPEN, &[("owner", &name), ("password", &password)]), None).await
}

/// The owner has no login again.
pub(super) async fn close_owner(access: &Access, owner: &Login) -> Result<(), Error> {
    alter(access, fill(OWNER_CLOSE, &[("owner", &literal(&owner.name))]), None).await
}

/// Says all of a script, and then records whose the users are.
async fn alter(access: &Access, script: String, record: Option<(&str, &str, Option<&str>)>) -> Result<(), Error> {
    let record = record.map(|(app, login, owner)| (app.to_owned(), login.to_owned(), owner.map(str::to_owned)));
    let options = access.options.clone().disable_statement_logging();
    let work = tokio::spawn(timeout(LONGEST, said(options, script, record)));
    let done = work.await.map_err(|e| Error::Broken(format!("users were not made: {e}")))?;
    done.map_err(|_| Error::Unavailable("it takes too long to make users".into()))?
}

async fn said(
    options: MySqlConnectOptions,
    script: String,
    record: Option<(String, String, Option<String>)>,
) -> Result<(), Error> {
    let mut connection: MySqlConnection = options.connect().await.map_err(classify)?;
    sqlx::raw_sql(server::SESSION).execute(&mut connection).await.map_err(classify)?;
    sqlx::raw_sql(AssertSqlSafe(script)).execute(&mut connection).await.map_err(classify)?;
    if let Some((app, login, owner)) = record {
        let record = sqlx::query(RECORD).bind(app).bind(login).bind(owner);
        record.execute(&mut connection).await.map_err(classify)?;
    }
    let _ = connection.close().await; // It has done its part.
    Ok(())
}

fn not_allowed(error: Error, what: &str) -> Error {
    match error {
        Error::Broken(why) | Error::Unavailable(why) if why.contains("denied") || why.contains("not allowed") => {
            Error::Refused(format!(
                "{what}: {why}. The engine's login needs CREATE USER, and all rights WITH GRANT OPTION on its own database and \
                 on those whose names begin with it and `_`"
            ))
        }
        Error::Broken(why) => Error::Refused(format!("{what}: {why}")),
        error => error,
    }
}

pub(super) fn identifier(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

/// A database in a GRANT, where `_` and `%` stand for others.
fn pattern(database: &str) -> String {
    identifier(&database.replace('\\', "\\\\").replace('_', "\\_").replace('%', "\\%"))
}

fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

/// A script without comment lines, its `{placeholders}` filled in. What is filled in is not looked at again.
fn fill(script: &str, values: &[(&str, &str)]) -> String {
    let mut filled = String::new();
    for line in script.lines().filter(|line| !line.starts_with("--")) {
        let mut rest = line;
        while let Some((before, after)) = rest.split_once('{') {
            filled.push_str(before);
            let named = after.split_once('}');
            let known = |name| values.iter().find(|(known, _)| *known == name);
            match named.and_then(|(name, after)| Some((known(name)?.1, after))) {
                Some((value, after)) => {
                    filled.push_str(value);
                    rest = after;
                }
                None => {
                    filled.push('{');
                    rest = after;
                }
            }
        }
        filled.push_str(rest);
        filled.push('\n');
    }
    filled
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grant_is_for_one_database() {
        assert_eq!(pattern("semel_a%b`c"), "`semel\\_a\\%b``c`");
        assert_eq!(literal("a'b\\c"), "'a''b\\\\c'");
    }

    #[test]
    fn names_that_do_not_fit_are_refused() {
        let server = |mariadb| Server { mariadb, version: String::new(), packet: 0 };
        let long = names("semel", &"a".repeat(30));
        assert!(check(&server(true), &long, "a", true).is_ok());
        assert!(check(&server(false), &long, "a", true).is_err());
        assert!(check(&server(false), &long, "a", false).is_ok());
    }

    #[test]
    fn what_is_filled_in_is_not_looked_at_again() {
        let filled = fill("-- {a}\n{a}{b} {} {c} '{}' {a", &[("a", "{b}"), ("b", "2")]);
        assert_eq!(filled, "{b}2 {} {c} '{}' {a\n");
    }
}
