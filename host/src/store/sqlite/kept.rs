//! Guests' statements that stay prepared, so that a text is checked and planned once and not for each message.
//!
//! What is kept is the statement itself, with the program that was read instruction by instruction, not a verdict about a
//! text: what runs again is what was looked at. It stays as it is for as long as the schema does. Where SQLite would plan it
//! anew, it is not kept, or no longer: see [`Kept::keep_for`] and [`Kept::get`]. All functions of a file are one app and
//! stand before the same walls, so whose text it was makes no difference.

use hashlink::LruCache;

use super::statement::Statement;

/// Most texts.
const MOST: usize = 64;
/// Longest text, in bytes.
const LONGEST: usize = 8 << 10;
/// Most memory of one statement, in bytes: a short text can be a long program, and all of SQLite shares one heap.
const LARGEST: usize = 64 << 10;

pub(super) struct Kept {
    statements: LruCache<String, Statement>,
    /// The version of the schema that they were prepared for.
    schema: i64,
}

impl Kept {
    pub(super) fn new() -> Self {
        Self { statements: LruCache::new(MOST), schema: 0 }
    }

    /// Whether what is kept was prepared for this version of the schema.
    pub(super) fn is_for(&self, schema: i64) -> bool {
        self.schema == schema
    }

    /// Of another schema nothing is kept.
    pub(super) fn keep_for(&mut self, schema: i64) {
        self.forget();
        self.schema = schema;
    }

    pub(super) fn forget(&mut self) {
        self.statements.clear();
    }

    /// The statement of this text, if it would run as it was checked.
    pub(super) fn get(&self, text: &str) -> Option<&Statement> {
        self.statements.peek(text).filter(|statement| !statement.is_expired())
    }

    /// Takes it out for use: the same text at the same time is another statement.
    pub(super) fn take(&mut self, text: &str) -> Option<Statement> {
        let (text, mut statement) = self.statements.remove_entry(text)?;
        statement.text = Some(text);
        Some(statement).filter(|statement| !statement.is_expired())
    }

    /// Whether a statement that was just prepared and bound may be kept. One that has expired by that is planned by the
    /// values of its parameters, so each time anew.
    pub(super) fn may_keep(text: &str, statement: &Statement) -> bool {
        text.len() <= LONGEST && !statement.is_expired() && statement.memory() <= LARGEST
    }

    /// Puts a statement away after use, if that is allowed; the least recently used one makes room.
    pub(super) fn give(&mut self, mut statement: Statement) {
        if let Some(text) = statement.text.take()
            && statement.put_away()
        {
            self.statements.insert(text, statement);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::super::connection::Connection;
    use super::super::guest_sql::{close_cursor, fetch, open_cursor, query};
    use super::*;
    use crate::clock::AnchoredClock;
    use crate::store::{Bounds, Rows, SqlError, Value};

    fn bounds() -> Bounds {
        Bounds { rows: 1000, bytes: 1 << 20, deadline: Instant::now() + Duration::from_secs(10) }
    }

    /// A guest in its transaction, with a table of its own; and the file, for others.
    fn guest() -> (Connection, rusqlite::Connection, tempfile::TempDir) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("test.db");
        let mut connection = Connection::open(&path, AnchoredClock::anchor()).expect("a connection");
        let table = "PRAGMA journal_mode = WAL; CREATE TABLE t (a UNIQUE); INSERT INTO t VALUES ('one'), ('two')";
        connection.sql.execute_batch(table).expect("a table");
        connection.begin_guest().expect("a transaction");
        (connection, rusqlite::Connection::open(&path).expect("a second connection"), folder)
    }

    fn ask(connection: &mut Connection, sql: &str, params: &[&str]) -> Result<Rows, SqlError> {
        let params: Vec<Value> = params.iter().map(|text| Value::Text((*text).into())).collect();
        query(connection, sql, &params, bounds())
    }

    fn texts(rows: &Rows) -> Vec<&str> {
        let text = |value: &'_ Value| matches!(value, Value::Text(_));
        let texts = rows.rows.iter().flatten().filter(|value| text(value));
        texts.map(|value| if let Value::Text(text) = value { text.as_str() } else { "" }).collect()
    }

    #[test]
    fn a_text_is_prepared_once() {
        let (mut connection, ..) = guest();
        let sql = "SELECT a FROM t WHERE a = $1";
        for wanted in ["one", "two", "none"] {
            let found = ask(&mut connection, sql, &[wanted]).expect("rows");
            assert_eq!(texts(&found), if wanted == "none" { vec![] } else { vec![wanted] });
            assert!(connection.kept.get(sql).is_some(), "it is kept");
        }
        assert!(ask(&mut connection, sql, &[]).is_err(), "parameters of before are gone");
    }

    #[test]
    fn the_same_text_at_the_same_time_is_another_statement() {
        let (mut connection, ..) = guest();
        let sql = "SELECT a FROM t ORDER BY a";
        ask(&mut connection, sql, &[]).expect("rows");
        for number in [1, 2] {
            open_cursor(&mut connection, number, sql, &[], bounds()).expect("a cursor");
        }
        let one_row = Bounds { rows: 1, ..bounds() };
        for number in [1, 2] {
            let rows = fetch(&mut connection, number, one_row).expect("a row");
            assert_eq!(rows, [[Value::Text("one".into())]], "each from its beginning");
        }
        close_cursor(&mut connection, 1);
        let found = ask(&mut connection, sql, &[]).expect("rows");
        assert_eq!(texts(&found), ["one", "two"], "one that was left in the middle begins anew");
        assert_eq!(fetch(&mut connection, 2, one_row).expect("a row"), [[Value::Text("two".into())]]);
    }

    #[test]
    fn what_is_planned_by_its_parameters_is_planned_each_time() {
        let (mut connection, ..) = guest();
        let sql = "SELECT a FROM t WHERE a LIKE $1";
        for (pattern, count) in [("one%", 1), ("%o%", 2), ("t%", 1), ("x", 0)] {
            assert_eq!(ask(&mut connection, sql, &[pattern]).expect("rows").rows.len(), count, "{pattern}");
            assert!(connection.kept.get(sql).is_none(), "it is not kept");
        }
    }

    #[test]
    fn of_another_schema_nothing_is_kept() {
        let (mut connection, other, _folder) = guest();
        let sql = "SELECT * FROM t WHERE a = 'one'";
        assert_eq!(ask(&mut connection, sql, &[]).expect("rows").columns.len(), 1);
        connection.end_guest();
        other.execute_batch("ALTER TABLE t ADD b").expect("somebody else changes the schema");
        connection.begin_guest().expect("a transaction");
        assert!(connection.kept.get(sql).is_none(), "it is forgotten");
        assert_eq!(ask(&mut connection, sql, &[]).expect("rows").columns.len(), 2);
        connection.end_guest();
        connection.begin().expect("a transaction");
        connection.sql.execute_batch("ALTER TABLE t ADD c").expect("a change that is undone");
        connection.end_guest();
        connection.begin_guest().expect("a transaction");
        assert!(connection.kept.get(sql).is_none(), "the schema has its number, but was read anew");
        assert_eq!(ask(&mut connection, sql, &[]).expect("rows").columns.len(), 2);
    }

    #[test]
    fn what_went_wrong_is_not_kept() {
        let (mut connection, ..) = guest();
        let sql = "INSERT INTO t VALUES ($1)";
        ask(&mut connection, sql, &["three"]).expect("an insert");
        assert!(connection.kept.get(sql).is_some());
        assert!(ask(&mut connection, sql, &["three"]).is_err(), "it is there already");
        assert!(connection.kept.get(sql).is_none());
        assert_eq!(ask(&mut connection, sql, &["four"]).expect("an insert").changed, 1);
    }

    /// A short text may be a long program: kept by the dozen it would take the memory of the whole process's SQLite.
    #[test]
    fn little_memory_is_kept() {
        let (mut connection, ..) = guest();
        let mut large = String::from("WITH c0 (a) AS (SELECT a FROM t)");
        for level in 1..9 {
            let before = level - 1;
            large.push_str(&format!(
                ", c{level} (a) AS (SELECT x.a FROM c{before} x, (SELECT a FROM c{before} LIMIT 1))"
            ));
        }
        large.push_str(" SELECT count(*) FROM c8");
        assert!(large.len() < LONGEST);
        ask(&mut connection, &large, &[]).expect("a row");
        assert!(connection.kept.get(&large).is_none(), "a long program");
        let long = format!("SELECT '{}'", "x".repeat(LONGEST));
        ask(&mut connection, &long, &[]).expect("a row");
        assert!(connection.kept.get(&long).is_none(), "a long text");
        for number in 0..2 * MOST {
            ask(&mut connection, &format!("SELECT {number}"), &[]).expect("a row");
        }
        assert_eq!(connection.kept.statements.len(), MOST);
    }
}
