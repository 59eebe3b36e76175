//! A guest's statement, through SQLite's C interface: prepared by itself, each time anew, behind the walls.
//!
//! sqlx would run every statement of a text and would serve a text it has seen from its cache, without asking the
//! authorizer again. Here the text is one statement, prepared in guest mode, its byte code read before it runs, never
//! kept, and after it the connection must still be in the host's transaction.

use std::cell::Cell;
use std::ffi::{CStr, c_char, c_int};
use std::time::Instant;

use libsqlite3_sys as ffi;
use sqlx::Connection as _;
use sqlx::sqlite::{LockedSqliteHandle, SqliteConnection};

use super::byte_code::{Owned, Program};
use super::walls::{Mode, Wall, Walls};
use super::{Error, functions, gate, values};
use crate::store::{Bounds, Column, DatabaseError, Rows, SqlError, Value};

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

/// Each lock leaves a note for the driver's thread. If that thread gets no processor for as many locks in a row as its
/// queue is long (50), the next one waits for room in it, with the lock, and the thread for the lock: for ever. An answer
/// to a ping means that all notes are read.
pub(super) const MOST_LOCKS: u32 = 16;

thread_local! {
    /// Locks since the last ping, of the one connection that this thread writes with.
    static LOCKS: Cell<u32> = const { Cell::new(0) };
}

const NO_MEMORY: &str = "the statement takes more memory than it may";

/// A prepared statement of a guest. Ends with the value; only ever touched while the connection is locked.
pub(super) struct Statement {
    raw: *mut ffi::sqlite3_stmt,
    pub(super) columns: Vec<Column>,
    /// Rows that were stepped over when a cursor was opened, and are fetched first.
    pending: Vec<Vec<Value>>,
    done: bool,
    /// How often SQLite had planned it anew when its byte code was checked.
    plans: c_int,
}

/// Settings for the whole life of the connection.
#[expect(unsafe_code, reason = "sqlx has no interface for these settings")]
pub(super) fn harden(handle: &mut LockedSqliteHandle<'_>) -> Result<(), Error> {
    let database = handle.as_raw_handle().as_ptr();
    let (on, off): (c_int, c_int) = (1, 0);
    // SAFETY: the handle is locked; these options take an int and an optional pointer for the answer.
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

/// The connection to itself, inside the host's transaction. A statement may have ended it (`ON CONFLICT ROLLBACK`, a
/// full disk, an interruption): whatever ran after that would be committed on its own.
pub(super) async fn enter(connection: &mut SqliteConnection) -> Result<LockedSqliteHandle<'_>, SqlError> {
    let gone = |e: sqlx::Error| SqlError::Doomed(e.to_string());
    if LOCKS.replace((LOCKS.get() + 1) % MOST_LOCKS) == 0 {
        connection.ping().await.map_err(gone)?;
    }
    let mut handle = connection.lock_handle().await.map_err(gone)?;
    if in_transaction(&mut handle) {
        return Ok(handle);
    }
    Err(SqlError::Doomed("the database rolled the transaction back".into()))
}

/// Whether a transaction is open.
#[expect(unsafe_code, reason = "sqlx has no interface for the autocommit flag")]
pub(super) fn in_transaction(handle: &mut LockedSqliteHandle<'_>) -> bool {
    // SAFETY: the handle is locked and open.
    unsafe { ffi::sqlite3_get_autocommit(handle.as_raw_handle().as_ptr()) == 0 }
}

/// Whether the byte code of a statement keeps to what is the app's: this wall by itself, for whoever looks at the walls.
pub(super) fn check_program(handle: &mut LockedSqliteHandle<'_>, walls: &Walls, sql: &str) -> Result<(), SqlError> {
    let database = handle.as_raw_handle().as_ptr();
    let (_, program) = plan(database, walls, sql, &[])?;
    program.check(&mut walls.owned(), || Owned::load(database)).map_err(SqlError::Forbidden)
}

/// Prepares one statement of a guest and binds its parameters.
pub(super) fn prepare(
    handle: &mut LockedSqliteHandle<'_>,
    walls: &Walls,
    sql: &str,
    params: &[Value],
    deadline: Instant,
) -> Result<Statement, SqlError> {
    let text = if walls.stands(Wall::FirstWord) { gate::first_word(sql).map_err(SqlError::Forbidden)? } else { sql };
    if walls.stands(Wall::Names) {
        gate::check_text(text).map_err(SqlError::Forbidden)?;
    }
    let database = handle.as_raw_handle().as_ptr();
    walls.was_denied();
    walls.set_deadline(Some(deadline)); // Planning a statement can take as long as running it.
    walls.set_mode(Mode::Guest);
    let planned = plan(database, walls, text, params);
    walls.set_mode(Mode::Host);
    walls.set_deadline(None);
    let (mut statement, program) = planned.map_err(|error| match error {
        _ if walls.was_interrupted() => SqlError::Deadline,
        _ if walls.was_exhausted() => SqlError::Doomed(NO_MEMORY.into()),
        SqlError::Database(refused) if walls.was_denied() => SqlError::Forbidden(refused.message),
        error => error,
    })?;
    program.check(&mut walls.owned(), || Owned::load(database)).map_err(SqlError::Forbidden)?;
    statement.plans = plans(&statement);
    Ok(statement)
}

/// In guest mode: one statement, its parameters, and what it will do.
fn plan(
    database: *mut ffi::sqlite3,
    walls: &Walls,
    text: &str,
    params: &[Value],
) -> Result<(Statement, Program), SqlError> {
    let (statement, rest) = prepare_one(database, text)?;
    if !gate::is_blank(rest) {
        return Err(SqlError::Forbidden("only one statement at a time".into()));
    }
    values::bind(statement.raw, params).map_err(SqlError::Parameter)?;
    if !walls.stands(Wall::ByteCode) {
        return Ok((statement, Program::default()));
    }
    let unread = || SqlError::Doomed("the statement could not be checked".into());
    let program = Program::read(statement.raw).map_err(SqlError::Forbidden)?.ok_or_else(unread)?;
    Ok((statement, program))
}

/// How often SQLite has planned a statement anew.
#[expect(unsafe_code, reason = "SQLite's C interface")]
fn plans(statement: &Statement) -> c_int {
    // SAFETY: the caller has locked the connection, and the statement is alive.
    unsafe { ffi::sqlite3_stmt_status(statement.raw, ffi::SQLITE_STMTSTATUS_REPREPARE, 0) }
}

#[expect(unsafe_code, reason = "SQLite's C interface")]
fn prepare_one(database: *mut ffi::sqlite3, text: &str) -> Result<(Statement, &str), SqlError> {
    let length = c_int::try_from(text.len()).unwrap_or(c_int::MAX);
    let mut raw = std::ptr::null_mut();
    let mut tail: *const c_char = std::ptr::null();
    // SAFETY: `database` is locked by the caller; `text` is read up to its length, and `tail` points into it.
    unsafe {
        let (values, statements) = limit(database, LONGEST_VALUE, LONGEST_SQL);
        let code = ffi::sqlite3_prepare_v3(database, text.as_ptr().cast(), length, 0, &raw mut raw, &raw mut tail);
        limit(database, values, statements);
        if code != ffi::SQLITE_OK {
            return Err(error(database, code, text));
        }
        if raw.is_null() {
            return Err(SqlError::Forbidden("the text holds no statement".into()));
        }
        let columns = (0..ffi::sqlite3_column_count(raw))
            .map(|index| Column {
                name: owned(ffi::sqlite3_column_name(raw, index)).unwrap_or_default(),
                type_name: owned(ffi::sqlite3_column_decltype(raw, index)).unwrap_or_default(),
            })
            .collect();
        let used = tail.offset_from(text.as_ptr().cast());
        Ok((
            Statement { raw, columns, pending: Vec::new(), done: false, plans: 0 },
            text.get(used.unsigned_abs()..).unwrap_or("?"),
        ))
    }
}

/// Opens a cursor: a statement that writes is run now, whether or not anybody fetches what it returns. (SQLite makes
/// all changes before it returns the first row.)
#[expect(unsafe_code, reason = "SQLite's C interface")]
pub(super) fn start(
    handle: &mut LockedSqliteHandle<'_>,
    walls: &Walls,
    statement: &mut Statement,
    bounds: Bounds,
) -> Result<(), SqlError> {
    // SAFETY: the caller has locked the connection, and the statement is alive.
    let reads = unsafe { ffi::sqlite3_stmt_readonly(statement.raw) } != 0;
    if !reads {
        statement.pending = step(handle, walls, statement, Bounds { rows: 1, ..bounds }, true)?.rows;
    }
    Ok(())
}

/// Takes up to `bounds.rows` further rows. More than that is an error unless `portion` asks for just so many.
#[expect(unsafe_code, reason = "SQLite's C interface")]
pub(super) fn step(
    handle: &mut LockedSqliteHandle<'_>,
    walls: &Walls,
    statement: &mut Statement,
    bounds: Bounds,
    portion: bool,
) -> Result<Rows, SqlError> {
    let database = handle.as_raw_handle().as_ptr();
    let mut rows = Rows { columns: statement.columns.clone(), ..Rows::default() };
    if bounds.rows > 0 {
        rows.rows.append(&mut statement.pending);
    }
    let mut bytes = 0;
    walls.set_deadline(Some(bounds.deadline));
    walls.set_mode(Mode::Guest);
    // SAFETY: `database` is locked by the caller, and the statement belongs to it and has not been finalized.
    let end = unsafe {
        let limits = limit(database, LONGEST_VALUE, LONGEST_SQL);
        let end = loop {
            if statement.done || (portion && rows.rows.len() >= bounds.rows as usize) {
                break Ok(());
            }
            match ffi::sqlite3_step(statement.raw) {
                ffi::SQLITE_ROW if rows.rows.len() >= bounds.rows as usize => break Err(SqlError::TooManyRows),
                ffi::SQLITE_ROW => {
                    bytes += values::size(statement.raw, statement.columns.len());
                    if bytes > bounds.bytes {
                        break Err(SqlError::TooManyBytes);
                    }
                    rows.rows.push(values::row(statement.raw, statement.columns.len()));
                }
                ffi::SQLITE_DONE => statement.done = true,
                code => break Err(error(database, code, "")),
            }
        };
        if ffi::sqlite3_stmt_readonly(statement.raw) == 0 {
            rows.changed = u64::try_from(ffi::sqlite3_changes64(database)).unwrap_or(0);
        }
        limit(database, limits.0, limits.1);
        end
    };
    walls.set_mode(Mode::Host);
    walls.set_deadline(None);
    statement.done |= end.is_err(); // Stepping on would run it again from its beginning.
    if end.is_err() && walls.was_interrupted() {
        return Err(SqlError::Deadline);
    }
    if end.is_err() && walls.was_exhausted() {
        return Err(SqlError::Doomed(NO_MEMORY.into()));
    }
    if !in_transaction(handle) {
        return Err(SqlError::Doomed("the statement ended the transaction".into()));
    }
    if plans(statement) != statement.plans {
        return Err(SqlError::Doomed("the statement was planned anew, and so it was not checked".into()));
    }
    end.map(|()| rows)
}

#[expect(unsafe_code, reason = "SQLite's C interface")]
impl Drop for Statement {
    fn drop(&mut self) {
        // SAFETY: prepared by `prepare_one`, finalized only here; whoever drops it has the connection to itself.
        unsafe { ffi::sqlite3_finalize(self.raw) };
    }
}

#[expect(unsafe_code, reason = "SQLite's C interface")]
unsafe fn limit(database: *mut ffi::sqlite3, value: c_int, sql: c_int) -> (c_int, c_int) {
    // SAFETY: the caller has locked the connection.
    unsafe {
        (
            ffi::sqlite3_limit(database, ffi::SQLITE_LIMIT_LENGTH, value),
            ffi::sqlite3_limit(database, ffi::SQLITE_LIMIT_SQL_LENGTH, sql),
        )
    }
}

#[expect(unsafe_code, reason = "SQLite's C interface")]
unsafe fn owned(text: *const c_char) -> Option<String> {
    // SAFETY: SQLite hands out NUL-terminated texts that live until the next call on the same object.
    (!text.is_null()).then(|| unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned())
}

/// What a result code means to the guest.
#[expect(unsafe_code, reason = "SQLite's C interface")]
unsafe fn error(database: *mut ffi::sqlite3, code: c_int, sql: &str) -> SqlError {
    // SAFETY: the caller has locked the connection and has just got this code from it.
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
