//! What a driver's error means to whoever asked, in words without the driver's decoration, and never with a password.

use sqlx::mysql::{MySqlConnectOptions, MySqlDatabaseError};

use super::Error;

/// A lock that was not to be had in time: the statement is undone, the transaction is not.
pub(super) const LOCK_WAIT: u16 = 1205;
const DEADLOCK: u16 = 1213;
const CHANGED: u16 = 1020;
/// More sessions than the server, or the user, may have.
const TOO_MANY: [u16; 3] = [1040, 1203, 1226];

/// The number of an error that the server said.
pub(super) fn code(error: &sqlx::Error) -> Option<u16> {
    let database = error.as_database_error()?;
    Some(database.try_downcast_ref::<MySqlDatabaseError>()?.number())
}

/// The five characters of an error that the server said.
pub(super) fn sqlstate(error: &sqlx::Error) -> Option<String> {
    error.as_database_error()?.code().map(std::borrow::Cow::into_owned)
}

/// Whether the server has surely undone the transaction of which it said that.
pub(super) fn undoes(error: &sqlx::Error) -> bool {
    matches!(code(error), Some(DEADLOCK | LOCK_WAIT | CHANGED))
}

/// What an error of the engine's own statements means.
pub(super) fn classify(error: sqlx::Error) -> Error {
    let Some(database) = error.as_database_error().and_then(|e| e.try_downcast_ref::<MySqlDatabaseError>()) else {
        let text = error.to_string();
        return match error {
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::Protocol(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed => Error::Unavailable(text),
            _ => Error::Broken(text),
        };
    };
    said(database.number(), database.code().unwrap_or_default(), database.message())
}

/// What the server said.
fn said(number: u16, sqlstate: &str, message: &str) -> Error {
    let text = format!("{message} (error {number}, SQLSTATE {sqlstate})");
    match (number, sqlstate.get(..2).unwrap_or_default()) {
        (DEADLOCK | LOCK_WAIT | CHANGED, _) | (_, "40") => Error::Busy(text),
        // Too many sessions, a user or a database that is gone under a host that is up, a server that ends or was made
        // read-only, a session or a statement that was killed, a full disk, no memory.
        (
            1040 | 1044 | 1045 | 1049 | 1203 | 1226 | 1053 | 1077 | 1079 | 1080 | 1290 | 1792 | 1836 | 1317 | 1927
            | 1969 | 3024 | 4031 | 3 | 28 | 1021 | 1026 | 1030 | 1037 | 1038 | 1041 | 1114 | 1135,
            _,
        )
        | (_, "08" | "28" | "70") => Error::Unavailable(text),
        _ => Error::Broken(text),
    }
}

/// Whether a connection may be had a moment later.
pub(super) fn passes(error: &sqlx::Error) -> bool {
    code(error).is_some_and(|number| TOO_MANY.contains(&number))
}

/// Why the first connection failed: where, and what to do.
pub(super) fn at_open(options: &MySqlConnectOptions, error: sqlx::Error) -> Error {
    let place = format!("{}:{}", options.get_host(), options.get_port());
    let number = code(&error);
    match error {
        sqlx::Error::Tls(error) => not_encrypted(&place, &error.to_string()),
        // What the handshake says of a certificate.
        sqlx::Error::Io(error) if error.kind() == std::io::ErrorKind::InvalidData => {
            not_encrypted(&place, &error.to_string())
        }
        sqlx::Error::Io(error) => Error::Unavailable(format!("no connection to the server at {place}: {error}")),
        sqlx::Error::Database(error) => {
            let message = error.message();
            let why = match number {
                Some(1045) => format!("it refuses this login: {message}; look at USER and PASSWORD"),
                Some(1044 | 1049) => format!("{message}; make it first: CREATE DATABASE …, GRANT ALL ON … TO …"),
                _ => return Error::Unavailable(format!("the server at {place}: {message}")),
            };
            Error::Refused(format!("the server at {place}: {why}"))
        }
        error => Error::Unavailable(format!("the server at {place}: {error}")),
    }
}

fn not_encrypted(place: &str, why: &str) -> Error {
    Error::Refused(format!(
        "no encrypted connection to the server at {place}: {why}; look at ssl-mode and ssl-ca in the URL"
    ))
}

/// Why a session of an app's user could not be opened: refused if it was the login.
pub(super) fn at_login(error: sqlx::Error) -> Error {
    match (code(&error), error.as_database_error()) {
        (Some(1044 | 1045 | 4151 | 3118), Some(database)) => {
            Error::Refused(format!("the login of the app is refused: {}", database.message()))
        }
        _ => classify(error),
    }
}

/// Why the tables could not be made.
pub(super) fn at_install(error: sqlx::Error) -> Error {
    match (code(&error), error.as_database_error()) {
        (Some(1044 | 1142 | 1227 | 1370), Some(database)) => Error::Refused(format!(
            "{}: the login needs all rights on the database (GRANT ALL PRIVILEGES ON … TO …)",
            database.message()
        )),
        _ => classify(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unreachable_place_is_named_without_the_password() {
        let options = MySqlConnectOptions::new().host("db.example").port(1234).password("secret");
        let refused = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
        let Error::Unavailable(text) = at_open(&options, sqlx::Error::Io(refused)) else { panic!("not as it is") };
        assert_eq!(text, "no connection to the server at db.example:1234: connection refused");
        assert!(matches!(classify(sqlx::Error::PoolTimedOut), Error::Unavailable(_)));
        assert!(matches!(classify(sqlx::Error::RowNotFound), Error::Broken(_)));
    }

    #[test]
    fn what_may_pass_is_told_from_what_will_not() {
        assert!(matches!(said(1213, "40001", "Deadlock"), Error::Busy(_)));
        assert!(matches!(said(1205, "HY000", "Lock wait timeout"), Error::Busy(_)));
        assert!(matches!(said(1040, "08004", "Too many connections"), Error::Unavailable(_)));
        assert!(matches!(said(1146, "42S02", "no such table"), Error::Broken(_)));
    }
}
