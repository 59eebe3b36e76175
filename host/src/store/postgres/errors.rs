//! What a driver's error means to whoever asked, in words without the driver's decoration, and never with a password.

use sqlx::postgres::PgConnectOptions;

use super::Error;

/// What an error of the engine's own statements means.
pub(super) fn classify(error: sqlx::Error) -> Error {
    let sqlx::Error::Database(database) = &error else {
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
    said(&database.code().unwrap_or_default(), database.message())
}

/// What an error of the host's own statements in a guest's session means.
pub(super) fn classify_guests(error: &tokio_postgres::Error) -> Error {
    match error.as_db_error() {
        Some(database) => said(database.code().code(), database.message()),
        None => Error::Unavailable(error.to_string()),
    }
}

/// What the server said.
fn said(code: &str, message: &str) -> Error {
    let text = format!("{message} (SQLSTATE {code})");
    match (code, code.get(..2).unwrap_or_default()) {
        ("55P03", _) | (_, "40") => Error::Busy(text),
        // A login that was changed, or a database that was renamed, under a host that is up: a person mends that.
        ("25P03" | "25P02" | "3D000", _) | (_, "08" | "28" | "53" | "57") => Error::Unavailable(text),
        _ => Error::Broken(text),
    }
}

/// Why the first connection failed: where, and what to do.
pub(super) fn at_open(options: &PgConnectOptions, error: sqlx::Error) -> Error {
    let place = format!("{}:{}", options.get_host(), options.get_port());
    match error {
        sqlx::Error::Tls(error) => not_encrypted(&place, &error.to_string()),
        // What the handshake says of a certificate.
        sqlx::Error::Io(error) if error.kind() == std::io::ErrorKind::InvalidData => {
            not_encrypted(&place, &error.to_string())
        }
        sqlx::Error::Io(error) => Error::Unavailable(format!("no connection to Postgres at {place}: {error}")),
        sqlx::Error::Database(error) => {
            let (code, message) = (error.code().unwrap_or_default(), error.message());
            let why = match code.as_ref() {
                "28P01" | "28000" => format!("the database refuses this login: {message}; look at USER and PASSWORD"),
                "3D000" => format!("{message}; make it first: CREATE DATABASE … OWNER …"),
                _ => return Error::Unavailable(format!("Postgres at {place}: {message} (SQLSTATE {code})")),
            };
            Error::Refused(format!("Postgres at {place}: {why}"))
        }
        error => Error::Unavailable(format!("Postgres at {place}: {error}")),
    }
}

fn not_encrypted(place: &str, why: &str) -> Error {
    Error::Refused(format!(
        "no encrypted connection to Postgres at {place}: {why}; look at sslmode and sslrootcert in the URL"
    ))
}

/// Why an app's session could not be opened: refused if it was the login.
pub(super) fn at_login(error: &tokio_postgres::Error) -> Error {
    match error.as_db_error() {
        Some(database) if database.code().code().starts_with("28") => not_let_in(database.message()),
        _ => classify_guests(error),
    }
}

/// The same of a session of the owner of an app's tables.
pub(super) fn at_owners_login(error: sqlx::Error) -> Error {
    match error.as_database_error() {
        Some(database) if database.code().is_some_and(|code| code.starts_with("28")) => not_let_in(database.message()),
        _ => classify(error),
    }
}

fn not_let_in(message: &str) -> Error {
    Error::Refused(format!("the login of the app is refused: {message}"))
}

/// Why the schema could not be made.
pub(super) fn at_install(error: sqlx::Error) -> Error {
    match error.as_database_error() {
        Some(database) if database.code().as_deref() == Some("42501") => Error::Refused(format!(
            "{}: the login must own the database (ALTER DATABASE … OWNER TO …)",
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
        let options = PgConnectOptions::new_without_pgpass().host("db.example").port(1234).password("secret");
        let refused = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
        let Error::Unavailable(text) = at_open(&options, sqlx::Error::Io(refused)) else { panic!("not as it is") };
        assert_eq!(text, "no connection to Postgres at db.example:1234: connection refused");
        assert!(matches!(classify(sqlx::Error::PoolTimedOut), Error::Unavailable(_)));
        assert!(matches!(classify(sqlx::Error::RowNotFound), Error::Broken(_)));
    }
}
