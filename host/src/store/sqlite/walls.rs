//! The walls that SQLite itself holds up: an authorizer that is asked about every table, column and function of a
//! statement, a commit hook that refuses any commit while a guest is in, and a progress handler that interrupts what
//! takes too long or too much memory.
//!
//! The authorizer denies by default. In host mode it refuses only what would run an app's trigger or view with the
//! engine's rights; in guest mode everything but plain statements over the app's tables.

use std::collections::HashSet;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Instant;

use libsqlite3_sys as ffi;

use super::Error;
use super::byte_code::Owned;
use super::connection::handle;

/// What guests may call; everything else is denied.
static FUNCTIONS: LazyLock<HashSet<&str>> =
    LazyLock::new(|| include_str!("functions.txt").split_ascii_whitespace().collect());

/// Memory that all of SQLite may hold, in bytes; whoever asks for more is told that there is none. Two copies of the
/// largest component that a host takes by default (64 MiB), what a guest may have, and the rest for caches.
const HEAP: i64 = 384 << 20;
/// Memory that SQLite may hold while a guest's statement goes on, in bytes. It is far from what statements need (sorting
/// goes to files), so that no guest loses its run when a component is read beside it.
const GUEST_HEAP: i64 = 192 << 20;
/// Instructions between two looks at the clock and the memory. One instruction can add a few MiB.
const INSTRUCTIONS: c_int = 100;

/// Who is speaking on the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Mode {
    Host,
    Guest,
    Migration,
}

/// What the callbacks look at. Lives as long as the process: SQLite keeps a plain pointer to it.
#[derive(Default)]
pub(super) struct Walls {
    mode: AtomicU8,
    guest_in: AtomicBool,
    denied: AtomicBool,
    deadline: Mutex<Option<Instant>>,
    interrupted: AtomicBool,
    /// It was for memory that the progress handler interrupted.
    exhausted: AtomicBool,
    owned: Mutex<Owned>,
    /// Whose statements run, by message and fence; and whose are no longer wanted.
    claim: Mutex<Option<(i64, i64)>>,
    unwanted: Mutex<Option<(i64, i64)>>,
    #[cfg(test)]
    down: AtomicU8,
}

/// The walls that the fuzzer takes down, to see that it finds what they stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Wall {
    FirstWord = 1,
    Names = 2,
    Authorizer = 4,
    ByteCode = 8,
    CommitHook = 16,
}

impl Walls {
    /// Installs the callbacks on a connection.
    pub(super) fn raise(sql: &rusqlite::Connection) -> Result<Arc<Self>, Error> {
        let walls = Arc::new(Self::default());
        let hook = Arc::clone(&walls);
        sql.commit_hook(Some(move || hook.guest_in.load(Ordering::SeqCst) && hook.stands(Wall::CommitHook)))?;
        let progress = Arc::clone(&walls);
        sql.progress_handler(INSTRUCTIONS, Some(move || !progress.may_go_on()))?;
        set_authorizer(sql, Arc::clone(&walls));
        limit_heap();
        Ok(walls)
    }

    /// Outside the fuzzer's own tests every wall does.
    #[cfg(not(test))]
    #[expect(clippy::unused_self, reason = "the same signature as under test")]
    pub(super) fn stands(&self, _: Wall) -> bool {
        true
    }

    #[cfg(test)]
    pub(super) fn stands(&self, wall: Wall) -> bool {
        self.down.load(Ordering::SeqCst) & wall as u8 == 0
    }

    #[cfg(test)]
    pub(super) fn take_down(&self, walls: &[Wall]) {
        self.down.store(walls.iter().fold(0, |down, wall| down | *wall as u8), Ordering::SeqCst);
    }

    /// What the byte code of guests may open, as it was when this was asked last.
    pub(super) fn owned(&self) -> std::sync::MutexGuard<'_, Owned> {
        self.owned.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set_mode(&self, mode: Mode) {
        self.mode.store(mode as u8, Ordering::SeqCst);
    }

    /// Whether the authorizer has denied anything since this was asked last. SQLite's own code for that is lost where a
    /// function is denied.
    pub(super) fn was_denied(&self) -> bool {
        self.denied.swap(false, Ordering::SeqCst)
    }

    /// From the guest's BEGIN until the host itself commits.
    pub(super) fn set_guest_in(&self, guest_in: bool) {
        self.guest_in.store(guest_in, Ordering::SeqCst);
    }

    /// Arms or disarms the interruption of a long statement.
    pub(super) fn set_deadline(&self, deadline: Option<Instant>) {
        *self.deadline.lock().unwrap_or_else(PoisonError::into_inner) = deadline;
        if deadline.is_some() {
            self.interrupted.store(false, Ordering::SeqCst);
            self.exhausted.store(false, Ordering::SeqCst);
        }
    }

    /// Whether the progress handler has interrupted for the deadline since it was set.
    pub(super) fn was_interrupted(&self) -> bool {
        self.interrupted.load(Ordering::SeqCst)
    }

    /// Whether the progress handler has interrupted for memory since the deadline was set.
    pub(super) fn was_exhausted(&self) -> bool {
        self.exhausted.load(Ordering::SeqCst)
    }

    /// Whose statements run from now on.
    pub(super) fn set_claim(&self, claim: Option<(i64, i64)>) {
        *self.claim.lock().unwrap_or_else(PoisonError::into_inner) = claim;
    }

    /// Ends the statement that a claim's run is in, and those it still begins.
    pub(super) fn interrupt(&self, claim: (i64, i64)) {
        *self.unwanted.lock().unwrap_or_else(PoisonError::into_inner) = Some(claim);
    }

    /// Whether what runs is no longer wanted. A fence is never given twice, so an old wish harms nobody.
    fn is_unwanted(&self) -> bool {
        let unwanted = *self.unwanted.lock().unwrap_or_else(PoisonError::into_inner);
        unwanted.is_some() && unwanted == *self.claim.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn may_go_on(&self) -> bool {
        let deadline = *self.deadline.lock().unwrap_or_else(PoisonError::into_inner);
        if deadline.is_some_and(|deadline| Instant::now() >= deadline || self.is_unwanted()) {
            self.interrupted.store(true, Ordering::SeqCst);
            return false;
        }
        if self.mode.load(Ordering::SeqCst) == Mode::Guest as u8 && memory_used() > GUEST_HEAP {
            self.exhausted.store(true, Ordering::SeqCst);
            return false;
        }
        true
    }

    fn allows(&self, action: &Action<'_>) -> bool {
        const GUEST: u8 = Mode::Guest as u8;
        const MIGRATION: u8 = Mode::Migration as u8;
        match self.mode.load(Ordering::SeqCst) {
            GUEST => action.is_plain() || !self.stands(Wall::Authorizer),
            MIGRATION => action.is_plain() || action.is_definition(),
            _ => action.trigger.is_none(), // The engine has neither triggers nor views, so whatever has one is the app's.
        }
    }
}

/// One question of the authorizer.
struct Action<'a> {
    code: c_int,
    first: Option<&'a str>,
    second: Option<&'a str>,
    database: Option<&'a str>,
    trigger: Option<&'a str>,
}

impl Action<'_> {
    /// Reads and writes of the app's own tables, with functions that only compute.
    fn is_plain(&self) -> bool {
        let table = self.first.unwrap_or_default();
        let main = self.database.is_none_or(|name| name == "main");
        match self.code {
            ffi::SQLITE_SELECT | ffi::SQLITE_RECURSIVE => true,
            // Without a column it is a CTE or subquery alias, or counts rows.
            ffi::SQLITE_READ => is_app_table(table) && (main || self.second.is_none_or(str::is_empty)),
            ffi::SQLITE_INSERT | ffi::SQLITE_UPDATE | ffi::SQLITE_DELETE => main && is_app_table(table),
            ffi::SQLITE_FUNCTION => self.second.is_some_and(is_computing),
            _ => false,
        }
    }

    /// What app migrations may do beyond that: tables and indexes. SQLite writes them down in its schema table.
    fn is_definition(&self) -> bool {
        let table = self.first.unwrap_or_default();
        let second = self.second.unwrap_or_default();
        let main = self.database.is_none_or(|name| name == "main");
        main && match self.code {
            ffi::SQLITE_CREATE_TABLE | ffi::SQLITE_DROP_TABLE | ffi::SQLITE_REINDEX => is_app_table(table),
            ffi::SQLITE_CREATE_INDEX | ffi::SQLITE_DROP_INDEX => {
                (is_app_table(table) || table.starts_with("sqlite_autoindex_")) && is_app_table(second)
            }
            ffi::SQLITE_ALTER_TABLE => is_app_table(second),
            ffi::SQLITE_READ | ffi::SQLITE_INSERT | ffi::SQLITE_UPDATE | ffi::SQLITE_DELETE => {
                matches!(table.to_ascii_lowercase().as_str(), "sqlite_master" | "sqlite_schema")
            }
            ffi::SQLITE_FUNCTION => [
                "sqlite_rename_table",
                "sqlite_rename_column",
                "sqlite_rename_test",
                "sqlite_drop_column",
                "sqlite_rename_quotefix",
                "sqlite_fail",
                "sqlite_add_constraint",
                "sqlite_drop_constraint",
                "sqlite_find_constraint",
                "printf",
                "raise",
            ]
            .contains(&second),
            _ => false,
        }
    }
}

/// Everything in the file that is neither the engine's nor SQLite's belongs to the app.
pub(super) fn is_app_table(name: &str) -> bool {
    let begins = |prefix: &str| name.get(..prefix.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(prefix));
    !["semel_", "sqlite_", "pragma_"].into_iter().any(begins)
}

/// Functions that compute from their arguments, and the clock and randomness of SQLite.
pub(super) fn is_computing(name: &str) -> bool {
    FUNCTIONS.contains(name) || FUNCTIONS.contains(name.to_ascii_lowercase().as_str())
}

#[expect(unsafe_code, reason = "rusqlite has no interface for the memory of SQLite")]
fn limit_heap() {
    // SAFETY: may be called at any time; it is one number for the process.
    unsafe { ffi::sqlite3_hard_heap_limit64(HEAP) };
}

#[expect(unsafe_code, reason = "rusqlite has no interface for the memory of SQLite")]
pub(super) fn is_heap_limited() -> bool {
    // SAFETY: may be called at any time; a negative number asks.
    unsafe { ffi::sqlite3_hard_heap_limit64(-1) == HEAP }
}

#[expect(unsafe_code, reason = "rusqlite has no interface for the memory of SQLite")]
fn memory_used() -> i64 {
    // SAFETY: may be called at any time.
    unsafe { ffi::sqlite3_memory_used() }
}

/// By SQLite's own numbers, whatever a driver makes of them.
#[expect(unsafe_code, reason = "SQLite's C interface")]
fn set_authorizer(sql: &rusqlite::Connection, walls: Arc<Walls>) {
    let context = Arc::into_raw(walls).cast::<c_void>().cast_mut();
    // SAFETY: the connection is open and the caller's. The context is never freed (one per store that is opened), so it
    // outlives the connection.
    unsafe { ffi::sqlite3_set_authorizer(handle(sql), Some(authorize), context) };
}

#[expect(unsafe_code, reason = "called by SQLite's C code")]
unsafe extern "C" fn authorize(
    context: *mut c_void,
    code: c_int,
    first: *const c_char,
    second: *const c_char,
    database: *const c_char,
    trigger: *const c_char,
) -> c_int {
    // SAFETY: `context` is the `Walls` that `set_authorizer` leaked; SQLite's texts live until the callback returns.
    let (walls, action) = unsafe {
        let text = |pointer: *const c_char| {
            (!pointer.is_null()).then(|| CStr::from_ptr(pointer).to_str().unwrap_or("semel_not_utf8"))
        };
        let action =
            Action { code, first: text(first), second: text(second), database: text(database), trigger: text(trigger) };
        (&*context.cast::<Walls>(), action)
    };
    if walls.allows(&action) {
        return ffi::SQLITE_OK;
    }
    walls.denied.store(true, Ordering::SeqCst);
    ffi::SQLITE_DENY
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_function_list_holds_no_door() {
        for name in ["->", "abs", "zeroblob", "json_extract", "unlikely", "COUNT"] {
            assert!(is_computing(name), "{name}");
        }
        for name in [
            "load_extension",
            "fts3_tokenizer",
            "writefile",
            "readfile",
            "edit",
            "sqlite_rename_table",
            "eval",
            "json_patch",
        ] {
            assert!(!is_computing(name), "{name}");
        }
    }

    #[test]
    fn engine_tables_are_nobody_elses() {
        assert!(is_app_table("counters"));
        for name in ["semel_queue", "SEMEL_queue", "sqlite_master", "sqlite_sequence", "pragma_table_info"] {
            assert!(!is_app_table(name), "{name}");
        }
    }
}
