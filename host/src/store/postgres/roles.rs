//! The roles of an app: a login without powers for its guests, an owner for its schema. Their passwords are derived from
//! the installation's secret, so that all hosts know them and nobody keeps them.

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use sqlx::{AssertSqlSafe, Executor};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::access::Access;
use super::connection::Engine;
use super::{Error, classify};
use crate::store::Login;

const APP_ROLE: &str = include_str!("../../../../migrations/postgres/app_role.sql");
const APP_SCHEMA: &str = include_str!("../../../../migrations/postgres/app_schema.sql");
const APP_GRANTS: &str = include_str!("../../../../migrations/postgres/app_grants.sql");
const OWNER_OPEN: &str = include_str!("../../../../migrations/postgres/owner_open.sql");
const LOCKDOWN: &str = include_str!("../../../../migrations/postgres/lockdown.sql");
const OWNER_CLOSE: &str = include_str!("../../../../migrations/postgres/owner_close.sql");
pub(super) const LOCK: &str = include_str!("deploy_lock.sql");

/// Longest name of a role.
const LONGEST: usize = 63;
/// Longest name of an app, so that its roles' names hold it and enough of the database's.
const LONGEST_APP: usize = 34;
const ROUNDS: u32 = 4096;

/// The names of an app's roles.
pub(super) struct Names {
    /// The login of its guests.
    pub(super) login: String,
    /// The owner of its schema.
    pub(super) owner: String,
}

/// Roles belong to the whole server, so the database is in their names (or a hash of it, if that is too long).
pub(super) fn names(database: &str, app: &str) -> Names {
    let name = |database: &str| (format!("semel.{database}.{app}"), format!("semel_owner.{database}.{app}"));
    let (mut login, mut owner) = name(database);
    if owner.len() > LONGEST {
        (login, owner) = name(&hex::encode(&Sha256::digest(database)[..8]));
    }
    Names { login, owner }
}

/// The password of a role: as good as the secret itself.
pub(super) fn password(secret: &[u8; 32], role: &str) -> String {
    hex::encode(mac(secret, &[b"semel password of ", role.as_bytes()]))
}

fn mac(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    let mut mac =
        <Hmac<Sha256> as KeyInit>::new_from_slice(key).unwrap_or_else(|_| unreachable!("any length is a key"));
    parts.iter().for_each(|part| mac.update(part));
    mac.finalize().into_bytes().into()
}

/// What Postgres keeps of a password (RFC 5803), so that no log of statements holds the password itself.
fn verifier(password: &str) -> String {
    let salt: [u8; 16] = rand::random();
    let mut round = mac(password.as_bytes(), &[&salt, &1_u32.to_be_bytes()]);
    let mut salted = round;
    for _ in 1..ROUNDS {
        round = mac(password.as_bytes(), &[&round]);
        salted.iter_mut().zip(round).for_each(|(all, one)| *all ^= one);
    }
    let stored = Sha256::digest(mac(&salted, &[b"Client Key"]));
    let server = mac(&salted, &[b"Server Key"]);
    let text = |bytes: &[u8]| STANDARD.encode(bytes);
    format!("SCRAM-SHA-256${ROUNDS}:{}${}:{}", text(&salt), text(&stored), text(&server))
}

fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

pub(super) fn check(app: &str) -> Result<(), Error> {
    let reserved = ["semel", "semel_api", "public", "information_schema"].contains(&app) || app.starts_with("pg_");
    if reserved || app.len() > LONGEST_APP {
        return Err(Error::Refused(format!(
            "app = \"{app}\" cannot be: the name is reserved, or longer than {LONGEST_APP} bytes"
        )));
    }
    Ok(())
}

/// Makes the roles and the schema of an app, or brings them up to date.
pub(super) async fn make(engine: &Engine, access: &Access, app: &str, login: &Login, owner: &str) -> Result<(), Error> {
    let script = fill(
        &[APP_ROLE, APP_SCHEMA, APP_GRANTS].join("\n"),
        &[
            ("app", &identifier(app)),
            ("app_text", &literal(app)),
            ("login", &identifier(&login.name)),
            ("login_text", &literal(&login.name)),
            ("owner", &identifier(owner)),
            ("owner_text", &literal(owner)),
            ("engine", &identifier(&access.engine)),
            ("database", &identifier(&access.database)),
            ("password", &literal(&verifier(&login.password))),
        ],
    );
    alter(engine, script).await.map_err(|error| not_allowed(error, app))
}

/// Takes roles into use that a person has made.
pub(super) async fn adopt(
    engine: &Engine,
    access: &Access,
    app: &str,
    login: &str,
    owner: Option<&str>,
) -> Result<(), Error> {
    let script = fill(
        APP_GRANTS,
        &[
            ("app_text", &literal(app)),
            ("login", &identifier(login)),
            ("login_text", &literal(login)),
            ("owner", &identifier(owner.unwrap_or(&access.engine))),
            ("owner_text", &owner.map_or("NULL".into(), literal)),
        ],
    );
    let wrong = |error| match error {
        Error::Broken(why) => Error::Refused(format!("[apps.{app}]: {why}")),
        error => error,
    };
    alter(engine, script).await.map_err(wrong)
}

/// The schema alone, where there is one login for all.
pub(super) async fn make_schema(engine: &Engine, app: &str) -> Result<(), Error> {
    alter(engine, format!("CREATE SCHEMA IF NOT EXISTS {}", identifier(app))).await
}

/// What the owner of an app's schema lets its guests do there: to be run in the owner's session.
pub(super) fn rights_of_guests(app: &str, login: &str, owner: &str) -> String {
    fill(APP_SCHEMA, &[("app", &identifier(app)), ("login", &identifier(login)), ("owner", &identifier(owner))])
}

/// Lets the owner of an app log in for a while.
pub(super) async fn open_owner(engine: &Engine, owner: &Login) -> Result<(), Error> {
    let verifier = literal(&verifier(&owner.password));
    alter(engine, fill(OWNER_OPEN, &[("owner", &identifier(&owner.name)), ("password", &verifier)])).await
}

/// The owner has no login again.
pub(super) async fn close_owner(engine: &Engine, owner: &Login) -> Result<(), Error> {
    alter(engine, fill(OWNER_CLOSE, &[("owner", &identifier(&owner.name))])).await
}

/// What only a superuser can run, for the engine's login of this name.
pub(super) fn lockdown(engine: &str) -> String {
    fill(LOCKDOWN, &[("engine", &identifier(engine))])
}

async fn alter(engine: &Engine, text: String) -> Result<(), Error> {
    let alter = engine.transaction(move |connection| {
        Box::pin(async move {
            connection.execute(LOCK).await.map_err(classify)?;
            sqlx::raw_sql(AssertSqlSafe(text)).execute(connection).await.map(drop).map_err(classify)
        })
    });
    alter.await
}

fn not_allowed(error: Error, app: &str) -> Error {
    match error {
        Error::Broken(why) => Error::Refused(format!(
            "the roles or the schema of the app \"{app}\" cannot be made: {why}. If they are left over from somebody \
             else, drop them or give them to the engine's login"
        )),
        error => error,
    }
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
    fn names_hold_the_database_and_fit() {
        let short = names("shop db", "app");
        assert_eq!((short.login.as_str(), short.owner.as_str()), ("semel.shop db.app", "semel_owner.shop db.app"));
        let long = ["ä".repeat(31), "b".repeat(63)].map(|database| names(&database, &"a".repeat(LONGEST_APP)));
        for names in &long {
            assert!(names.login.len() < names.owner.len() && names.owner.len() <= LONGEST, "{}", names.owner);
        }
        assert_ne!(long[0].login, long[1].login);
    }

    #[test]
    fn what_is_filled_in_is_not_looked_at_again() {
        let filled = fill("-- {a}\n{a}{b} {} {c} '{}' {a", &[("a", "{b}"), ("b", "2")]);
        assert_eq!(filled, "{b}2 {} {c} '{}' {a\n");
    }
}
