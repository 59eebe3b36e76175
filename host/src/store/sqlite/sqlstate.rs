//! What SQLite says against a guest's statement, in the words of `wit/transaction.wit`.

use std::ffi::{CStr, c_char, c_int};

use libsqlite3_sys as ffi;

use crate::store::{DatabaseError, SqlError};

/// A text of SQLite's, copied.
#[expect(unsafe_code, reason = "SQLite's C interface")]
pub(super) unsafe fn owned(text: *const c_char) -> Option<String> {
    // SAFETY: SQLite hands out NUL-terminated texts that live until the next call on the same object.
    (!text.is_null()).then(|| unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned())
}

/// What a result code means to the guest.
#[expect(unsafe_code, reason = "SQLite's C interface")]
pub(super) unsafe fn error(database: *mut ffi::sqlite3, code: c_int, sql: &str) -> SqlError {
    // SAFETY: the connection is the caller's, who has just got this code from it.
    let (message, extended, offset) = unsafe {
        (
            owned(ffi::sqlite3_errmsg(database)).unwrap_or_default(),
            ffi::sqlite3_extended_errcode(database),
            ffi::sqlite3_error_offset(database),
        )
    };
    match code & 0xff {
        ffi::SQLITE_AUTH => SqlError::Forbidden(message),
        ffi::SQLITE_BUSY
        | ffi::SQLITE_LOCKED
        | ffi::SQLITE_FULL
        | ffi::SQLITE_IOERR
        | ffi::SQLITE_NOMEM
        | ffi::SQLITE_CORRUPT
        | ffi::SQLITE_READONLY
        | ffi::SQLITE_CANTOPEN => SqlError::Doomed(message),
        _ => {
            let position = usize::try_from(offset)
                .ok()
                .and_then(|bytes| sql.get(..bytes))
                .map(|before| before.chars().count() + 1);
            let position = position.and_then(|place| u32::try_from(place).ok());
            SqlError::Database(Box::new(describe(extended, message, position)))
        }
    }
}

/// SQLite has no SQLSTATE of its own: the nearest one by result code and message.
fn describe(extended: c_int, message: String, position: Option<u32>) -> DatabaseError {
    let sqlstate = match extended {
        ffi::SQLITE_CONSTRAINT_UNIQUE | ffi::SQLITE_CONSTRAINT_PRIMARYKEY | ffi::SQLITE_CONSTRAINT_ROWID => "23505",
        ffi::SQLITE_CONSTRAINT_NOTNULL => "23502",
        ffi::SQLITE_CONSTRAINT_FOREIGNKEY => "23503",
        ffi::SQLITE_CONSTRAINT_CHECK => "23514",
        _ => match extended & 0xff {
            ffi::SQLITE_CONSTRAINT => "23000",
            ffi::SQLITE_TOOBIG => "54000",
            ffi::SQLITE_MISMATCH => "42804",
            ffi::SQLITE_RANGE => "22023",
            ffi::SQLITE_INTERRUPT => "57014",
            _ if message.starts_with("no such table") => "42P01",
            _ if message.starts_with("no such column") => "42703",
            _ if message.starts_with("no such function") => "42883",
            _ if message.contains("syntax error") || message.contains("incomplete input") => "42601",
            _ if message.contains("overflow") => "22003",
            _ => "HY000",
        },
    };
    let place =
        message.strip_prefix("UNIQUE constraint failed: ").or(message.strip_prefix("NOT NULL constraint failed: "));
    let place = place.map(|names| names.split(',').next().unwrap_or_default().trim());
    let (table, column) = place.and_then(|name| name.split_once('.')).unzip();
    let constraint = message.strip_prefix("CHECK constraint failed: ");
    DatabaseError {
        sqlstate: sqlstate.into(),
        constraint: constraint.map(str::to_owned),
        table: table.map(str::to_owned),
        column: column.map(str::to_owned),
        position,
        message,
    }
}
