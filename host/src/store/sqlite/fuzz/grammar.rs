//! Statements for the fuzzer: plain ones over the app's tables, and which share of all is what.

use std::collections::VecDeque;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::hostile::{hostile, mutant};

/// The tables of the app, see `app.sql`.
pub(super) const TABLES: [(&str, &[&str]); 4] = [
    ("own", &["id", "value", "n"]),
    ("log", &["id", "own_id", "note"]),
    ("pairs", &["k", "v"]),
    ("docs", &["id", "key", "secret", "body"]),
];
/// Columns of the engine's tables; some are the app's as well.
pub(super) const ENGINE_COLUMNS: [&str; 12] =
    ["secret", "id", "body", "token_hash", "value", "key", "message", "name", "sql", "seq", "bytes", "namespace"];
/// With how many arguments; some of them are the app's to call and some are not.
const FUNCTIONS: [(&str, usize); 32] = [
    ("abs", 1),
    ("char", 1),
    ("coalesce", 2),
    ("hex", 1),
    ("ifnull", 2),
    ("iif", 3),
    ("instr", 2),
    ("length", 1),
    ("lower", 1),
    ("ltrim", 1),
    ("max", 2),
    ("min", 2),
    ("nullif", 2),
    ("printf", 2),
    ("quote", 1),
    ("replace", 3),
    ("round", 1),
    ("rtrim", 2),
    ("sign", 1),
    ("substr", 3),
    ("trim", 2),
    ("typeof", 1),
    ("unicode", 1),
    ("upper", 1),
    ("json_array", 2),
    ("json_quote", 1),
    ("json_valid", 1),
    ("json_extract", 2),
    ("unhex", 2),
    ("concat_ws", 3),
    ("changes", 0),
    ("soundex", 1),
];
/// How many texts are remembered: about as many as are kept.
const AGAIN: usize = 60;
const AGGREGATES: [&str; 8] = ["count", "sum", "min", "max", "avg", "total", "group_concat", "json_group_array"];
/// A source of statements; the same seed gives the same ones.
pub(super) struct Grammar {
    random: ChaCha8Rng,
    last: String,
    /// What may be said again.
    said: VecDeque<String>,
}

type Scope = Vec<(String, Vec<&'static str>)>;

impl Grammar {
    pub(super) fn new(seed: u64) -> Self {
        Self { random: ChaCha8Rng::seed_from_u64(seed), last: "SELECT 1".into(), said: VecDeque::new() }
    }

    pub(super) fn below(&mut self, count: usize) -> usize {
        self.random.random_range(0..count)
    }

    pub(super) fn percent(&mut self, share: usize) -> bool {
        self.below(100) < share
    }

    pub(super) fn one<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }

    /// The next statement; one in six was said before, so that it is run as it was kept.
    pub(super) fn statement(&mut self) -> String {
        if self.said.len() == AGAIN && self.percent(17) {
            let place = self.below(AGAIN);
            return self.said[place].clone();
        }
        let made = self.new_statement();
        self.said.push_back(made.clone());
        if self.said.len() > AGAIN {
            self.said.pop_front();
        }
        made
    }

    fn new_statement(&mut self) -> String {
        let last = std::mem::take(&mut self.last);
        let made = match self.below(100) {
            0..58 => self.plain(),
            58..75 => hostile(self),
            75..90 => {
                let plain = self.plain();
                mutant(self, &plain, &last)
            }
            _ => {
                let hostile = hostile(self);
                mutant(self, &hostile, &last)
            }
        };
        self.last.clone_from(&made);
        made
    }

    /// A statement that no wall has anything against.
    pub(super) fn plain(&mut self) -> String {
        match self.below(10) {
            0..5 => self.select(2),
            5..7 => self.insert(),
            7..9 => self.update(),
            _ => self.delete(),
        }
    }

    /// With so many levels of subqueries.
    pub(super) fn select(&mut self, depth: usize) -> String {
        let mut scope = Scope::new();
        let with = if depth > 0 && self.percent(15) {
            let (column, inner) = (self.one(&ENGINE_COLUMNS), self.expression(&Scope::new(), 1));
            scope.push(("c".into(), vec![column]));
            format!("WITH c({column}) AS (SELECT {inner} UNION ALL SELECT {}) ", self.below(5))
        } else {
            String::new()
        };
        let from = self.sources(&mut scope, depth);
        let condition =
            if self.percent(60) { format!(" WHERE {}", self.expression(&scope, depth)) } else { String::new() };
        let tail = match self.below(8) {
            0 => {
                let (aggregate, of) = (self.one(&AGGREGATES), self.column(&scope));
                let by = self.column(&scope);
                return format!("{with}SELECT {by}, {aggregate}({of}) FROM {from}{condition} GROUP BY {by} LIMIT 50");
            }
            1 => {
                let (aggregate, of, by) = (self.one(&AGGREGATES), self.column(&scope), self.column(&scope));
                return format!(
                    "{with}SELECT {aggregate}({of}) OVER (PARTITION BY {by} ORDER BY {of}) FROM {from}{condition} LIMIT 50"
                );
            }
            2 => format!(" UNION SELECT {} ORDER BY 1 LIMIT 50", self.expression(&Scope::new(), 1)),
            3 => format!(" ORDER BY {} DESC LIMIT 50", self.column(&scope)),
            _ => " LIMIT 50".into(),
        };
        let distinct = if self.percent(10) { "DISTINCT " } else { "" };
        format!("{with}SELECT {distinct}{} FROM {from}{condition}{tail}", self.expression(&scope, depth))
    }

    /// FROM what, and under which names.
    fn sources(&mut self, scope: &mut Scope, depth: usize) -> String {
        let mut text = if scope.is_empty() { String::new() } else { "c".into() };
        for alias in ["a", "b"].into_iter().take(1 + usize::from(self.percent(35))) {
            let (source, columns) = match self.below(12) {
                0 if depth > 0 => (format!("({})", self.select(depth - 1)), vec!["rowid"]),
                1 => ("json_each('[1,\"x\",null]')".into(), vec!["key", "value"]),
                2 => ("(SELECT 1 AS id, 'one' AS value UNION ALL SELECT 2, 'x')".into(), vec!["id", "value"]),
                _ => {
                    let (name, columns) = self.one(&TABLES);
                    (name.to_owned(), columns.to_vec())
                }
            };
            let join = match (text.is_empty(), self.below(6)) {
                (true, _) => "",
                (_, 0) => " NATURAL JOIN ",
                (_, 1) => " NATURAL LEFT JOIN ",
                (_, 2) => " CROSS JOIN ",
                (_, 3) => " FULL JOIN ",
                _ => ", ",
            };
            text.push_str(&format!("{join}{source} AS {alias}"));
            if join == " FULL JOIN " {
                text.push_str(&format!(" ON {}", self.below(2)));
            }
            scope.push((alias.into(), columns));
        }
        text
    }

    fn column(&mut self, scope: &Scope) -> String {
        if scope.is_empty() {
            return self.literal();
        }
        let (alias, columns) = &scope[self.below(scope.len())];
        format!("{alias}.{}", columns[self.below(columns.len())])
    }

    fn literal(&mut self) -> String {
        match self.below(9) {
            0 => "NULL".into(),
            1 => "'one'".into(),
            2 => format!("'x{}'", self.below(20)),
            3 => "x'c3a9'".into(),
            4 => "1.5".into(),
            5 => "$1".into(),
            6 => "'{\"a\":[1,2]}'".into(),
            _ => self.below(12).to_string(),
        }
    }

    fn expression(&mut self, scope: &Scope, depth: usize) -> String {
        if depth == 0 {
            return if self.percent(60) { self.column(scope) } else { self.literal() };
        }
        let mut inner = || self.expression(scope, depth - 1);
        let (x, y) = (inner(), inner());
        match self.below(16) {
            0..3 => {
                let operator = self.one(&["+", "-", "*", "/", "%", "||", "&", "|", "<<"]);
                format!("({x} {operator} {y})")
            }
            3..6 => {
                let operator = self.one(&["=", "<", ">=", "<>", "IS", "IS NOT", "LIKE", "GLOB"]);
                format!("({x} {operator} {y})")
            }
            6 => format!("({x} AND NOT {y})"),
            7 => format!("CASE WHEN {x} THEN {y} ELSE {} END", self.literal()),
            8 => format!("{x} IN ({y}, {})", self.literal()),
            9 => format!("CAST({x} AS {})", self.one(&["TEXT", "INTEGER", "REAL", "BLOB"])),
            10 if depth > 1 => format!("({})", self.select(0)),
            11 if depth > 1 => format!("EXISTS ({})", self.select(0)),
            12 => format!("({x} COLLATE NOCASE < {y})"),
            _ => {
                let (name, count) = self.one(&FUNCTIONS);
                let arguments = [x, y, self.literal()];
                format!("{name}({})", arguments[..count].join(", "))
            }
        }
    }

    fn insert(&mut self) -> String {
        let (table, columns) = self.one(&TABLES);
        let verb = self.one(&[
            "INSERT",
            "INSERT",
            "INSERT",
            "INSERT OR IGNORE",
            "INSERT OR REPLACE",
            "REPLACE",
            "INSERT OR FAIL",
            "INSERT OR ABORT",
        ]);
        let some = columns[columns.len() - 2];
        let last = columns[columns.len() - 1];
        let source = if self.percent(60) {
            format!("VALUES ({}, {})", self.literal(), self.expression(&Scope::new(), 1))
        } else {
            let mut scope = Scope::new();
            let from = self.sources(&mut scope, 1);
            format!("SELECT {}, {} FROM {from} WHERE 1 LIMIT 20", self.column(&scope), self.expression(&scope, 1))
        };
        let conflict = match self.below(6) {
            0 if verb == "INSERT" => " ON CONFLICT DO NOTHING".into(),
            1 if verb == "INSERT" => format!(" ON CONFLICT DO UPDATE SET {last} = excluded.{last}"),
            _ => String::new(),
        };
        let back = self.returning();
        format!("{verb} INTO {table} ({some}, {last}) {source}{conflict}{back}")
    }

    fn update(&mut self) -> String {
        let (table, columns) = self.one(&TABLES);
        let scope = vec![(table.to_owned(), columns.to_vec())];
        let verb = self.one(&["UPDATE", "UPDATE", "UPDATE OR IGNORE", "UPDATE OR REPLACE"]);
        let (set, to) = (columns[self.below(columns.len())], self.expression(&scope, 1));
        let (condition, back) = (self.expression(&scope, 1), self.returning());
        format!("{verb} {table} SET {set} = {to} WHERE {condition}{back}")
    }

    fn delete(&mut self) -> String {
        let (table, columns) = self.one(&TABLES);
        let scope = vec![(table.to_owned(), columns.to_vec())];
        let back = self.returning();
        if self.percent(20) {
            return format!("DELETE FROM {table}{back}");
        }
        format!("DELETE FROM {table} WHERE {}{back}", self.expression(&scope, 1))
    }

    fn returning(&mut self) -> &'static str {
        if self.percent(15) { " RETURNING *" } else { "" }
    }
}
