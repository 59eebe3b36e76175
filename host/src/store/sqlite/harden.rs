//! Settings of the writer's connection for its whole life: how long values, statements and programs may be, and what SQLite
//! does for nobody.

use std::ffi::c_int;

use libsqlite3_sys as ffi;

use super::connection::handle;
use super::{Error, functions};

/// Longest text or blob a guest's statement may build, in bytes.
const LONGEST_VALUE: c_int = 5 << 18;
/// Longest statement, in bytes.
const LONGEST_SQL: c_int = 256 << 10;
/// Longest pattern of LIKE and GLOB, in bytes: their time grows with its square.
const LONGEST_PATTERN: c_int = 256;
/// Most arguments of a function: what `json_extract` and its like take for each of them grows with the text.
const MOST_ARGUMENTS: c_int = 127;
/// Longest byte code of a statement, in instructions.
const LONGEST_PROGRAM: c_int = 250_000;

/// Sets what stays.
#[expect(unsafe_code, reason = "rusqlite has no interface for dropping modules")]
pub(super) fn harden(sql: &rusqlite::Connection) -> Result<(), Error> {
    let database = handle(sql);
    let (on, off): (c_int, c_int) = (1, 0);
    // SAFETY: the connection is the caller's; these options take an int and an optional pointer for the answer.
    let codes = unsafe {
        ffi::sqlite3_limit(database, ffi::SQLITE_LIMIT_ATTACHED, 0);
        ffi::sqlite3_limit(database, ffi::SQLITE_LIMIT_VDBE_OP, LONGEST_PROGRAM);
        ffi::sqlite3_limit(database, ffi::SQLITE_LIMIT_LIKE_PATTERN_LENGTH, LONGEST_PATTERN);
        ffi::sqlite3_limit(database, ffi::SQLITE_LIMIT_FUNCTION_ARG, MOST_ARGUMENTS);
        // Nobody uses virtual tables. Only this one stays: functions that are still there point into it.
        let mut kept = [c"fts5".as_ptr(), std::ptr::null()];
        let none = std::ptr::null_mut::<c_int>();
        [
            ffi::sqlite3_drop_modules(database, kept.as_mut_ptr()),
            ffi::sqlite3_db_config(database, ffi::SQLITE_DBCONFIG_DEFENSIVE, on, none),
            ffi::sqlite3_db_config(database, ffi::SQLITE_DBCONFIG_TRUSTED_SCHEMA, off, none),
            ffi::sqlite3_db_config(database, ffi::SQLITE_DBCONFIG_DQS_DML, off, none),
            ffi::sqlite3_db_config(database, ffi::SQLITE_DBCONFIG_DQS_DDL, off, none),
        ]
    };
    match codes.iter().find(|code| **code != ffi::SQLITE_OK) {
        None => functions::register(database),
        Some(code) => Err(Error::Broken(format!("this SQLite cannot be hardened (code {code})"))),
    }
}

/// What only guests' statements are held to, while something is done for one of them.
pub(super) fn limited<T>(database: *mut ffi::sqlite3, work: impl FnOnce() -> T) -> T {
    let (value, sql) = limit(database, LONGEST_VALUE, LONGEST_SQL);
    let done = work();
    limit(database, value, sql);
    done
}

#[expect(unsafe_code, reason = "SQLite's C interface")]
fn limit(database: *mut ffi::sqlite3, value: c_int, sql: c_int) -> (c_int, c_int) {
    // SAFETY: the caller has the connection to himself.
    unsafe {
        (
            ffi::sqlite3_limit(database, ffi::SQLITE_LIMIT_LENGTH, value),
            ffi::sqlite3_limit(database, ffi::SQLITE_LIMIT_SQL_LENGTH, sql),
        )
    }
}
