//! What a guest asks of the database, one statement at a time, behind the walls.
//!
//! A driver would run every statement of a text, and would serve a text it has seen without asking the authorizer again. Here
//! the text is one statement. When it is prepared, its words are looked at, the authorizer is asked in guest mode, and the
//! byte code that came of it is read. Then it runs, as often as it is the same program (`kept.rs`); before and after each run
//! the connection must be in the host's transaction.

use std::time::Instant;

use libsqlite3_sys as ffi;

use super::byte_code::{Owned, Program};
use super::connection::Connection;
use super::gate;
use super::kept::Kept;
use super::statement::{NO_MEMORY, Statement};
use super::walls::{Mode, Wall, Walls};
use crate::store::{Bounds, Column, Rows, SqlError, Value};

/// Runs a statement and returns its rows.
pub(super) fn query(
    connection: &mut Connection,
    sql: &str,
    params: &[Value],
    bounds: Bounds,
) -> Result<Rows, SqlError> {
    let mut statement = ready(connection, sql, params, bounds.deadline)?;
    let rows = statement.step(connection.handle(), &connection.walls, bounds, false)?;
    connection.kept.give(statement);
    Ok(rows)
}

/// Opens a cursor under a number.
pub(super) fn open_cursor(
    connection: &mut Connection,
    number: u32,
    sql: &str,
    params: &[Value],
    bounds: Bounds,
) -> Result<Vec<Column>, SqlError> {
    let mut statement = ready(connection, sql, params, bounds.deadline)?;
    statement.start(connection.handle(), &connection.walls, bounds)?;
    let columns = statement.columns.clone();
    connection.cursors.insert(number, statement);
    Ok(columns)
}

/// Up to `bounds.rows` further rows of a cursor.
pub(super) fn fetch(connection: &mut Connection, number: u32, bounds: Bounds) -> Result<Vec<Vec<Value>>, SqlError> {
    ensure_open(connection)?;
    let database = connection.handle();
    let over = || SqlError::Parameter("the cursor is closed".into());
    let statement = connection.cursors.get_mut(&number).ok_or_else(over)?;
    statement.step(database, &connection.walls, bounds, true).map(|rows| rows.rows)
}

/// Frees a cursor.
pub(super) fn close_cursor(connection: &mut Connection, number: u32) {
    if let Some(statement) = connection.cursors.remove(&number) {
        connection.kept.give(statement);
    }
}

/// Whether a statement may run on any thread: it is planned already, and it is no burden there.
pub(super) fn is_light(connection: &Connection, sql: &str) -> bool {
    connection.kept.get(sql).is_some_and(Statement::is_light)
}

/// The same for the next rows of a cursor.
pub(super) fn is_light_cursor(connection: &Connection, number: u32) -> bool {
    connection.cursors.get(&number).is_none_or(Statement::is_light)
}

/// That the connection is inside the host's transaction. A statement may have ended it (`ON CONFLICT ROLLBACK`, a full
/// disk, an interruption): whatever ran after that would be committed on its own.
pub(super) fn ensure_open(connection: &Connection) -> Result<(), SqlError> {
    if connection.is_in_transaction() {
        return Ok(());
    }
    Err(SqlError::Doomed("the database rolled the transaction back".into()))
}

/// A statement of a guest with its parameters, checked: now, or when it was prepared.
pub(super) fn ready(
    connection: &mut Connection,
    sql: &str,
    params: &[Value],
    deadline: Instant,
) -> Result<Statement, SqlError> {
    ensure_open(connection)?;
    match connection.kept.take(sql) {
        Some(mut statement) => {
            statement.bind(params)?;
            Ok(statement)
        }
        None => prepare(connection, sql, params, deadline),
    }
}

fn prepare(connection: &Connection, sql: &str, params: &[Value], deadline: Instant) -> Result<Statement, SqlError> {
    let (database, walls) = (connection.handle(), &*connection.walls);
    let text = if walls.stands(Wall::FirstWord) { gate::first_word(sql).map_err(SqlError::Forbidden)? } else { sql };
    if walls.stands(Wall::Names) {
        gate::check_text(text).map_err(SqlError::Forbidden)?;
    }
    walls.was_denied();
    walls.set_deadline(Some(deadline)); // Planning a statement can take as long as running it.
    walls.set_mode(Mode::Guest);
    let planned = plan(database, walls, text, params);
    walls.set_mode(Mode::Host);
    walls.set_deadline(None);
    let Planned { mut statement, program, keep } = planned.map_err(|error| match error {
        _ if walls.was_interrupted() => SqlError::Deadline,
        _ if walls.was_exhausted() => SqlError::Doomed(NO_MEMORY.into()),
        SqlError::Database(refused) if walls.was_denied() => SqlError::Forbidden(refused.message),
        error => error,
    })?;
    program.check(&mut walls.owned(), || Owned::load(database)).map_err(SqlError::Forbidden)?;
    statement.plans = statement.count_plans();
    statement.deep = program.is_deep();
    statement.text = keep.then(|| sql.to_owned());
    Ok(statement)
}

/// Whether the byte code of a statement keeps to what is the app's: this wall by itself, for whoever looks at the walls.
pub(super) fn check_program(connection: &Connection, sql: &str) -> Result<(), SqlError> {
    let (database, walls) = (connection.handle(), &*connection.walls);
    let Planned { program, .. } = plan(database, walls, sql, &[])?;
    program.check(&mut walls.owned(), || Owned::load(database)).map_err(SqlError::Forbidden)
}

struct Planned {
    statement: Statement,
    /// What it will do.
    program: Program,
    /// Whether it may be kept.
    keep: bool,
}

/// One statement, its parameters, and what it will do.
fn plan(database: *mut ffi::sqlite3, walls: &Walls, text: &str, params: &[Value]) -> Result<Planned, SqlError> {
    let (mut statement, rest) = Statement::prepare(database, text)?;
    if !gate::is_blank(rest) {
        return Err(SqlError::Forbidden("only one statement at a time".into()));
    }
    statement.bind(params)?;
    let keep = Kept::may_keep(text, &statement); // Asked before the byte code is: that plans anew what has expired.
    if !walls.stands(Wall::ByteCode) {
        return Ok(Planned { statement, program: Program::default(), keep });
    }
    let unread = || SqlError::Doomed("the statement could not be checked".into());
    let program = Program::read(statement.raw).map_err(SqlError::Forbidden)?.ok_or_else(unread)?;
    Ok(Planned { statement, program, keep })
}
