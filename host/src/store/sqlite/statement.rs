//! One prepared statement of a guest, through SQLite's C interface: bound, stepped within bounds, and put away.

use std::ffi::{c_char, c_int};
use std::time::{Duration, Instant};

use libsqlite3_sys as ffi;

use super::harden::limited;
use super::sqlstate::{error, owned};
use super::values;
use super::walls::{Mode, Walls};
use crate::store::{Bounds, Column, Rows, SqlError, Value};

pub(super) const NO_MEMORY: &str = "the statement takes more memory than it may";

/// What ran for less than this holds nobody up who shares its thread.
const QUICK: Duration = Duration::from_millis(1);

/// Ends with the value. Only ever touched by whoever has its connection.
pub(super) struct Statement {
    pub(super) raw: *mut ffi::sqlite3_stmt,
    pub(super) columns: Vec<Column>,
    /// What it is kept under after use; none if it is not to be kept.
    pub(super) text: Option<String>,
    /// Whether what it calls takes the more stack, the deeper a value is nested.
    pub(super) deep: bool,
    /// How often SQLite had planned it anew when its byte code was checked.
    pub(super) plans: c_int,
    /// Rows that were stepped over when a cursor was opened, and are fetched first.
    pending: Vec<Vec<Value>>,
    done: bool,
    /// How long it ran when it was used last.
    took: Duration,
}

#[expect(unsafe_code, reason = "SQLite's C interface")]
// SAFETY: it belongs to a connection without a thread of its own, and goes where that goes: in it, or in the hands of
// whoever holds it.
unsafe impl Send for Statement {}

impl Statement {
    /// Prepares the first statement of a text. Returns what of the text is left.
    #[expect(unsafe_code, reason = "SQLite's C interface")]
    pub(super) fn prepare(database: *mut ffi::sqlite3, text: &str) -> Result<(Self, &str), SqlError> {
        let length = c_int::try_from(text.len()).unwrap_or(c_int::MAX);
        let mut raw = std::ptr::null_mut();
        let mut tail: *const c_char = std::ptr::null();
        // SAFETY: the connection is the caller's; `text` is read up to its length, and `tail` points into it.
        unsafe {
            let (begin, flags) = (text.as_ptr().cast(), ffi::SQLITE_PREPARE_PERSISTENT);
            let code = limited(database, || {
                ffi::sqlite3_prepare_v3(database, begin, length, flags, &raw mut raw, &raw mut tail)
            });
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
            let used = tail.offset_from(begin);
            let (pending, took) = (Vec::new(), Duration::ZERO);
            let statement = Self { raw, columns, text: None, deep: false, plans: 0, pending, done: false, took };
            Ok((statement, text.get(used.unsigned_abs()..).unwrap_or("?")))
        }
    }

    /// Gives it its parameters, when it is not running.
    pub(super) fn bind(&mut self, params: &[Value]) -> Result<(), SqlError> {
        self.took = Duration::ZERO;
        values::bind(self.raw, params).map_err(SqlError::Parameter)
    }

    /// Opens a cursor: a statement that writes is run now, whether or not anybody fetches what it returns. (SQLite makes
    /// all changes before it returns the first row.)
    pub(super) fn start(&mut self, database: *mut ffi::sqlite3, walls: &Walls, bounds: Bounds) -> Result<(), SqlError> {
        if !self.reads() {
            self.pending = self.step(database, walls, Bounds { rows: 1, ..bounds }, true)?.rows;
        }
        Ok(())
    }

    /// Takes up to `bounds.rows` further rows. More than that is an error unless `portion` asks for just so many.
    pub(super) fn step(
        &mut self,
        database: *mut ffi::sqlite3,
        walls: &Walls,
        bounds: Bounds,
        portion: bool,
    ) -> Result<Rows, SqlError> {
        let mut rows = Rows { columns: self.columns.clone(), ..Rows::default() };
        if bounds.rows > 0 {
            rows.rows.append(&mut self.pending);
        }
        let began = Instant::now();
        walls.set_deadline(Some(bounds.deadline));
        walls.set_mode(Mode::Guest);
        let end = limited(database, || self.collect(database, bounds, portion, &mut rows));
        walls.set_mode(Mode::Host);
        walls.set_deadline(None);
        self.took += began.elapsed();
        self.done |= end.is_err(); // Stepping on would run it again from its beginning.
        let end = match end {
            Err(_) if walls.was_interrupted() => Err(SqlError::Deadline),
            Err(_) if walls.was_exhausted() => Err(SqlError::Doomed(NO_MEMORY.into())),
            _ if !in_transaction(database) => Err(SqlError::Doomed("the statement ended the transaction".into())),
            _ if self.count_plans() != self.plans => {
                Err(SqlError::Doomed("the statement was planned anew, and so it was not checked".into()))
            }
            end => end,
        };
        if end.is_err() {
            self.text = None; // What went wrong once is looked at from the beginning.
        }
        end.map(|()| rows)
    }

    #[expect(unsafe_code, reason = "SQLite's C interface")]
    fn collect(
        &mut self,
        database: *mut ffi::sqlite3,
        bounds: Bounds,
        portion: bool,
        rows: &mut Rows,
    ) -> Result<(), SqlError> {
        let mut bytes = 0;
        // SAFETY: the connection is the caller's; the statement belongs to it and has not been finalized.
        unsafe {
            let end = loop {
                if self.done || (portion && rows.rows.len() >= bounds.rows as usize) {
                    break Ok(());
                }
                match ffi::sqlite3_step(self.raw) {
                    ffi::SQLITE_ROW if rows.rows.len() >= bounds.rows as usize => break Err(SqlError::TooManyRows),
                    ffi::SQLITE_ROW => {
                        bytes += values::size(self.raw, self.columns.len());
                        if bytes > bounds.bytes {
                            break Err(SqlError::TooManyBytes);
                        }
                        rows.rows.push(values::row(self.raw, self.columns.len()));
                    }
                    ffi::SQLITE_DONE => self.done = true,
                    code => break Err(error(database, code, "")),
                }
            };
            if !self.reads() {
                rows.changed = u64::try_from(ffi::sqlite3_changes64(database)).unwrap_or(0);
            }
            end
        }
    }

    #[expect(unsafe_code, reason = "SQLite's C interface")]
    fn reads(&self) -> bool {
        // SAFETY: whoever asks has the connection, and the statement is alive; so in the next ones.
        unsafe { ffi::sqlite3_stmt_readonly(self.raw) != 0 }
    }

    /// How often SQLite has planned it anew.
    #[expect(unsafe_code, reason = "SQLite's C interface")]
    pub(super) fn count_plans(&self) -> c_int {
        // SAFETY: as in `reads`.
        unsafe { ffi::sqlite3_stmt_status(self.raw, ffi::SQLITE_STMTSTATUS_REPREPARE, 0) }
    }

    /// Memory that it takes as long as it is there, in bytes.
    #[expect(unsafe_code, reason = "SQLite's C interface")]
    pub(super) fn memory(&self) -> usize {
        // SAFETY: as in `reads`.
        let bytes = unsafe { ffi::sqlite3_stmt_status(self.raw, ffi::SQLITE_STMTSTATUS_MEMUSED, 0) };
        usize::try_from(bytes).unwrap_or(usize::MAX)
    }

    /// Whether SQLite will plan it anew before it runs: the schema that it was planned for is gone, or its plan goes by
    /// parameters that have other values now.
    #[expect(unsafe_code, reason = "SQLite's C interface")]
    pub(super) fn is_expired(&self) -> bool {
        // SAFETY: as in `reads`.
        unsafe { ffi::sqlite3_expired(self.raw) != 0 }
    }

    /// Whether it may run on any thread: it took no time when it ran last, and what it calls takes little stack.
    pub(super) fn is_light(&self) -> bool {
        !self.deep && self.took < QUICK
    }

    /// Makes it what it was before it was bound. False if that cannot be, or if it is not the program any more that was
    /// checked.
    #[expect(unsafe_code, reason = "SQLite's C interface")]
    pub(super) fn put_away(&mut self) -> bool {
        self.pending.clear();
        self.done = false;
        // SAFETY: as in `reads`.
        let codes = unsafe { [ffi::sqlite3_reset(self.raw), ffi::sqlite3_clear_bindings(self.raw)] };
        codes == [ffi::SQLITE_OK; 2] && self.count_plans() == self.plans && !self.is_expired()
    }
}

#[expect(unsafe_code, reason = "SQLite's C interface")]
impl Drop for Statement {
    fn drop(&mut self) {
        // SAFETY: prepared by `prepare`, finalized only here; whoever drops it has the connection.
        unsafe { ffi::sqlite3_finalize(self.raw) };
    }
}

/// Whether a transaction is open.
#[expect(unsafe_code, reason = "SQLite's C interface")]
fn in_transaction(database: *mut ffi::sqlite3) -> bool {
    // SAFETY: the connection is the caller's.
    unsafe { ffi::sqlite3_get_autocommit(database) == 0 }
}
