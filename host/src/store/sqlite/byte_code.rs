//! The byte code of a guest's statement: what SQLite will do, whatever the text looked like.
//!
//! Names and authorizer look at what the statement says, and SQLite does not ask about everything (columns that a join
//! compares by `USING`). Here the plan itself is read, instruction by instruction, before it runs: only instructions that
//! plain statements need, only tables and indexes of the app, only functions that compute. It is the very program that
//! runs afterwards, once or often (`sqlite3_stmt_explain` shows it without planning anew), so there is no verdict to keep and
//! none that could be old. Triggers and foreign keys are sub-programs, and are shown as well.
//!
//! One thing is different because of it: `changes()` inside a statement that writes is 0.

use std::collections::HashSet;
use std::ffi::{CStr, c_char, c_int};
use std::sync::LazyLock;

use libsqlite3_sys as ffi;

use super::walls::{is_app_table, is_computing};

/// Instructions that touch nothing but registers, and cursors that were opened before.
static HARMLESS: LazyLock<HashSet<&str>> =
    LazyLock::new(|| include_str!("opcodes.txt").split_ascii_whitespace().collect());

/// How SQLite reads the last number of an AUTOINCREMENT table, after it has opened `sqlite_sequence`.
const READ_SEQUENCE: [&str; 13] = [
    "String8", "Null", "Rewind", "Column", "Ne", "Rowid", "Column", "AddImm", "Copy", "Goto", "Next", "Integer",
    "Close",
];
/// How it writes the new one.
const WRITE_SEQUENCE: [&str; 5] = ["NotNull", "NewRowid", "MakeRecord", "Insert", "Close"];
/// The page number is in a register, not in the instruction.
const PAGE_IN_REGISTER: c_int = 0x10;

/// What a program opens, as far as it can be judged without the schema.
#[derive(Debug, Default)]
pub(super) struct Program {
    opcodes: Vec<&'static str>,
    opened: Vec<Opened>,
    schema: Option<Version>,
    deep: bool,
}

/// A version of the schema: its cookie, and the generation of what this connection knows of it.
type Version = (c_int, String);

#[derive(Debug)]
struct Opened {
    /// Where the next instruction is.
    next: usize,
    page: c_int,
    writes: bool,
    /// The text that the next instruction loads.
    text: Option<String>,
}

/// Root pages of what belongs to the app, in one version of the schema.
#[derive(Debug, Default)]
pub(super) struct Owned {
    version: Option<Version>,
    pages: HashSet<c_int>,
    /// Where SQLite keeps the numbers of AUTOINCREMENT tables, the engine's among them.
    sequence: Option<c_int>,
}

struct Instruction<'a> {
    opcode: &'a str,
    p1: c_int,
    p2: c_int,
    p3: c_int,
    p4: &'a str,
    p5: c_int,
}

impl Program {
    /// Reads the program of a statement whose parameters are bound; none if SQLite could not list it. Binding comes
    /// first since it may make SQLite plan anew.
    #[expect(unsafe_code, reason = "SQLite's C interface")]
    pub(super) fn read(statement: *mut ffi::sqlite3_stmt) -> Result<Option<Self>, String> {
        let mut program = Self::default();
        let mut verdict = Ok(());
        // SAFETY: the connection is the caller's; the statement is alive and not running. The texts of an
        // instruction live until the next step.
        unsafe {
            if ffi::sqlite3_stmt_explain(statement, 1) != ffi::SQLITE_OK {
                return Ok(None);
            }
            let text = |column| {
                let text = ffi::sqlite3_column_text(statement, column).cast::<c_char>();
                if text.is_null() { "" } else { CStr::from_ptr(text).to_str().unwrap_or("?") }
            };
            let number = |column| ffi::sqlite3_column_int(statement, column);
            while verdict.is_ok() && ffi::sqlite3_step(statement) == ffi::SQLITE_ROW {
                let (p1, p2, p3, p5) = (number(2), number(3), number(4), number(6));
                verdict = program.take(&Instruction { opcode: text(1), p1, p2, p3, p4: text(5), p5 });
            }
            // The reset says how the listing ended. The statement is made what it was in any case.
            let listed = ffi::sqlite3_reset(statement) == ffi::SQLITE_OK;
            let ready = ffi::sqlite3_stmt_explain(statement, 0) == ffi::SQLITE_OK;
            verdict.map(|()| (listed && ready).then_some(program))
        }
    }

    /// The next instruction, or why it must not run.
    fn take(&mut self, instruction: &Instruction<'_>) -> Result<(), String> {
        let Instruction { opcode, p1, p2, p3, p4, p5 } = *instruction;
        if let Some(opened) = self.opened.last_mut().filter(|opened| opened.next == self.opcodes.len()) {
            opened.text = (opcode == "String8").then(|| p4.to_owned());
        }
        let next = self.opcodes.len() + 1;
        let mut open = |page, writes| self.opened.push(Opened { next, page, writes, text: None });
        match opcode {
            "OpenRead" | "ReopenIdx" if p3 == 0 && p5 & PAGE_IN_REGISTER == 0 => open(p2, false),
            "OpenWrite" if p3 == 0 && p5 & PAGE_IN_REGISTER == 0 => open(p2, true),
            "Clear" if p2 == 0 => open(p1, true),
            // It compares the schema's version when it runs, if the last operand says so.
            "Transaction" if p1 == 0 && matches!(p2, 0 | 1) && p5 != 0 => self.schema = Some((p3, p4.to_owned())),
            "Function" | "PureFunc" | "AggStep" | "AggInverse" | "AggValue" | "AggFinal" => {
                let name = p4.rsplit_once('(').map_or(p4, |(name, _)| name);
                if !is_computing(name) {
                    return Err(format!("it calls {name}"));
                }
                self.deep |= name.starts_with("json") || name.starts_with("->");
            }
            "VOpen" => self.deep = true,
            _ if HARMLESS.contains(opcode) => {}
            _ => return Err(format!("it needs the instruction {opcode} {p1} {p2} {p3}")),
        }
        self.opcodes.push(HARMLESS.get(opcode).copied().unwrap_or_default());
        Ok(())
    }

    /// Whether what it calls goes as deep into the stack as a value is nested: all that has to do with JSON.
    pub(super) fn is_deep(&self) -> bool {
        self.deep
    }

    /// Whether everything it opens is the app's. `load` reads what that is, where the schema is another than last time.
    pub(super) fn check(&self, owned: &mut Owned, load: impl FnOnce() -> Owned) -> Result<(), String> {
        if self.opened.is_empty() {
            return Ok(());
        }
        if self.schema.is_none() {
            return Err("it opens a table outside a transaction".into());
        }
        if owned.version != self.schema {
            *owned = Owned { version: self.schema.clone(), ..load() };
        }
        let foreign = |opened: &&Opened| {
            let counts = owned.sequence == Some(opened.page) && self.only_counts(opened);
            !counts && !owned.pages.contains(&opened.page)
        };
        match self.opened.iter().find(foreign) {
            None => Ok(()),
            Some(Opened { page, .. }) => Err(format!("it opens a table that is not the app's (page {page})")),
        }
    }

    /// Whether this opening of `sqlite_sequence` is the one that SQLite makes for an AUTOINCREMENT table of the app.
    fn only_counts(&self, opened: &Opened) -> bool {
        let rest = self.opcodes.get(opened.next..).unwrap_or_default();
        if opened.writes {
            return rest.starts_with(&WRITE_SEQUENCE);
        }
        opened.text.as_deref().is_some_and(is_app_table) && rest.starts_with(&READ_SEQUENCE)
    }
}

impl Owned {
    /// Reads the schema. What cannot be read is not owned.
    #[expect(unsafe_code, reason = "SQLite's C interface")]
    pub(super) fn load(database: *mut ffi::sqlite3) -> Self {
        const TABLES: &CStr = c"SELECT tbl_name, rootpage FROM sqlite_schema WHERE type IN ('table', 'index')";
        let mut owned = Self::default();
        let mut statement = std::ptr::null_mut();
        // SAFETY: the connection is the caller's; names live until the next step.
        unsafe {
            let prepared =
                ffi::sqlite3_prepare_v2(database, TABLES.as_ptr(), -1, &raw mut statement, std::ptr::null_mut());
            while prepared == ffi::SQLITE_OK && ffi::sqlite3_step(statement) == ffi::SQLITE_ROW {
                let name = ffi::sqlite3_column_text(statement, 0).cast::<c_char>();
                let name = if name.is_null() { "" } else { CStr::from_ptr(name).to_str().unwrap_or_default() };
                let page = ffi::sqlite3_column_int(statement, 1);
                if name == "sqlite_sequence" {
                    owned.sequence = Some(page);
                } else if !name.is_empty() && is_app_table(name) {
                    owned.pages.insert(page);
                }
            }
            ffi::sqlite3_finalize(statement);
        }
        owned
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(program: &mut Program, opcode: &str, operands: [c_int; 3], p4: &str) -> Result<(), String> {
        let [p1, p2, p3] = operands;
        program.take(&Instruction { opcode, p1, p2, p3, p4, p5: c_int::from(opcode == "Transaction") })
    }

    fn opens(page: c_int, then: &[&str]) -> Result<(), String> {
        let mut program = Program::default();
        take(&mut program, "OpenWrite", [0, page, 0], "").expect("a page is judged later");
        for opcode in then {
            take(&mut program, opcode, [0; 3], "").expect("harmless");
        }
        take(&mut program, "Transaction", [0, 1, 7], "0").expect("the app's database");
        let load = || Owned { version: None, pages: HashSet::from([10]), sequence: Some(3) };
        program.check(&mut Owned::default(), load)
    }

    #[test]
    fn only_pages_of_the_app_are_opened() {
        assert!(opens(10, &[]).is_ok());
        assert!(opens(11, &[]).is_err());
        assert!(opens(3, &WRITE_SEQUENCE).is_ok(), "AUTOINCREMENT counts");
        assert!(opens(3, &["Rewind", "ResultRow"]).is_err());
    }

    #[test]
    fn instructions_that_a_plain_statement_does_not_need_are_refused() {
        for opcode in [
            "AutoCommit",
            "Savepoint",
            "Checkpoint",
            "JournalMode",
            "Vacuum",
            "SetCookie",
            "ParseSchema",
            "CreateBtree",
            "Destroy",
            "DropTable",
            "SqlExec",
            "Expire",
            "VUpdate",
            "VCreate",
            "Pagecount",
            "NextYear",
        ] {
            assert!(take(&mut Program::default(), opcode, [0; 3], "").is_err(), "{opcode}");
        }
        for (opcode, operands) in
            [("OpenRead", [0, 10, 1]), ("Clear", [10, 1, 0]), ("Transaction", [1, 0, 0]), ("Transaction", [0, 2, 0])]
        {
            assert!(take(&mut Program::default(), opcode, operands, "").is_err(), "{opcode} of another database");
        }
        assert!(take(&mut Program::default(), "Function", [0; 3], "load_extension(1)").is_err());
        assert!(take(&mut Program::default(), "Function", [0; 3], "->>(2)").is_ok());
    }
}
