//! Statements that try to get out, and changes to any statement.

use super::grammar::{ENGINE_COLUMNS, Grammar, TABLES};

const ENGINE_TABLES: [&str; 12] = [
    "semel_store",
    "semel_messages",
    "semel_queue",
    "semel_history",
    "semel_state",
    "semel_keys",
    "semel_functions",
    "semel_components",
    "sqlite_schema",
    "sqlite_master",
    "sqlite_sequence",
    "pragma_table_list",
];
/// `$t` is a table of the engine, `$c` a column of it, `$s` a plain SELECT, `$f` a function of no guest's.
const HOSTILE: [&str; 58] = [
    "COMMIT",
    "END",
    "ROLLBACK",
    "BEGIN IMMEDIATE",
    "SAVEPOINT x",
    "RELEASE x",
    "ROLLBACK TO semel_0",
    "/* $s */ COMMIT",
    "$s; COMMIT",
    "$s; ROLLBACK",
    "EXPLAIN $s",
    "VACUUM",
    "ANALYZE",
    "REINDEX",
    "PRAGMA journal_mode = DELETE",
    "PRAGMA writable_schema = ON",
    "PRAGMA user_version = 9",
    "PRAGMA foreign_keys = OFF",
    "ATTACH ':memory:' AS x",
    "DETACH main",
    "CREATE TABLE x (a)",
    "CREATE TEMP TABLE x (a)",
    "CREATE VIEW x AS $s",
    "CREATE TRIGGER x AFTER INSERT ON own BEGIN DELETE FROM $t; END",
    "DROP TABLE $t",
    "ALTER TABLE $t ADD COLUMN x",
    "SELECT * FROM $t",
    "SELECT $c FROM $t",
    "SELECT count(*) FROM $t",
    "SELECT hex($c) FROM \"$t\" LIMIT 1",
    "SELECT * FROM [$t]",
    "SELECT * FROM `$t`",
    "SELECT * FROM '$t'",
    "SELECT * FROM main.$t",
    "SELECT * FROM (TABLE $t)",
    "WITH c($c) AS (SELECT x'00') SELECT hex($c) FROM c FULL JOIN $t USING ($c)",
    "WITH c($c) AS ($s) SELECT count(*) FROM c JOIN $t USING ($c)",
    "WITH c($c) AS (SELECT $c FROM docs) SELECT * FROM c NATURAL JOIN $t",
    "WITH c($c) AS (SELECT NULL) SELECT $c FROM c NATURAL FULL JOIN $t",
    "WITH c($c) AS (SELECT 1) SELECT $c FROM c RIGHT JOIN $t USING ($c) LIMIT 3",
    "SELECT d.id FROM docs d FULL JOIN $t USING ($c)",
    "SELECT id FROM docs RIGHT JOIN $t USING (id)",
    "SELECT EXISTS (SELECT 1 FROM $t)",
    "SELECT 1 WHERE 1 IN $t",
    "SELECT (SELECT $c FROM $t LIMIT 1)",
    "INSERT INTO $t DEFAULT VALUES",
    "INSERT INTO docs (body) SELECT $c FROM $t",
    "DELETE FROM $t",
    "UPDATE $t SET $c = 1",
    "UPDATE own SET value = (SELECT hex($c) FROM $t)",
    "UPDATE own SET n = 1 FROM $t",
    "INSERT OR ROLLBACK INTO own (id) VALUES (1)",
    "UPDATE OR ROLLBACK own SET id = 2 WHERE id = 1",
    "INSERT INTO own (id) VALUES (7) ON CONFLICT DO UPDATE SET value = (SELECT $c FROM $t)",
    "SELECT $f",
    "SELECT value FROM json_each((SELECT json_group_array($c) FROM $t))",
    "DELETE FROM own RETURNING (SELECT $c FROM $t)",
    "SELECT sum(id) OVER (ORDER BY (SELECT $c FROM $t)) FROM own",
];
const DOORS: [&str; 8] = [
    "load_extension('x')",
    "fts3_tokenizer('simple')",
    "sqlite_version()",
    "sqlite_source_id()",
    "json_patch('{}', '{}')",
    "sqlite_rename_table('main', '', '', '', '', '', 0)",
    "last_insert_rowid()",
    "randomblob(4)",
];
/// What a mutation puts somewhere.
const BITS: [&str; 30] = [
    ";",
    "--",
    "/*",
    "*/",
    "'",
    "\"",
    "`",
    "[",
    "(",
    ")",
    "\0",
    "\n",
    "\u{a0}",
    "\u{feff}",
    "COMMIT",
    "ROLLBACK",
    "UNION ALL",
    "NATURAL",
    "FULL JOIN",
    "USING (id)",
    "USING (secret)",
    "main.",
    "temp.",
    "semel_store",
    "\"semel_messages\"",
    "sqlite_schema",
    "NOT",
    "NULL",
    "RETURNING *",
    "$9",
];

/// A statement that no guest may run, in one spelling or another.
pub(super) fn hostile(grammar: &mut Grammar) -> String {
    let template = grammar.one(&HOSTILE);
    let (table, column, door) = (grammar.one(&ENGINE_TABLES), grammar.one(&ENGINE_COLUMNS), grammar.one(&DOORS));
    let mut made = template.replace("$t", table).replace("$c", column).replace("$f", door);
    if made.contains("$s") {
        made = made.replace("$s", &grammar.select(1));
    }
    if grammar.percent(30) { spelled_otherwise(grammar, &made) } else { made }
}

/// Other letters and other white space, the same meaning.
fn spelled_otherwise(grammar: &mut Grammar, sql: &str) -> String {
    let mut made = String::new();
    for c in sql.chars() {
        match c {
            ' ' => made.push_str(grammar.one(&[" ", "\t", "\n", "/**/", " -- x\n", "  "])),
            c if grammar.percent(50) => made.push(c.to_ascii_uppercase()),
            c => made.push(c.to_ascii_lowercase()),
        }
    }
    made
}

/// With one to three changes; some take the end of the last statement.
pub(super) fn mutant(grammar: &mut Grammar, sql: &str, last: &str) -> String {
    let mut tokens = tokens(sql);
    for _ in 0..=grammar.below(3) {
        let place = grammar.below(tokens.len() + 1);
        let taken = tokens.get(place).cloned().unwrap_or_default();
        match grammar.below(8) {
            0 => tokens.insert(place, format!(" {} ", grammar.one(&BITS))),
            1 if place < tokens.len() => drop(tokens.remove(place)),
            2 => tokens.insert(place, taken),
            3 if place < tokens.len() => tokens[place] = format!(" {} ", grammar.one(&BITS)),
            4 if place < tokens.len() => {
                let other = grammar.below(tokens.len());
                tokens.swap(place, other);
            }
            5 => {
                let other = self::tokens(last);
                let from = grammar.below(other.len() + 1);
                tokens.splice(place.., other[from..].iter().cloned());
            }
            6 => {
                let table = grammar.one(&ENGINE_TABLES);
                for token in tokens.iter_mut().filter(|token| TABLES.iter().any(|(name, _)| name == token)) {
                    *token = table.to_owned();
                }
            }
            _ => {
                let text = tokens.concat();
                let cut = (0..=grammar.below(text.len() + 1)).rev().find(|at| text.is_char_boundary(*at));
                tokens = self::tokens(&text[..cut.unwrap_or(0)]);
            }
        }
    }
    tokens.concat()
}

/// Words, numbers, texts, and everything else one by one.
fn tokens(sql: &str) -> Vec<String> {
    let mut tokens: Vec<String> = Vec::new();
    let mut quote = false;
    for c in sql.chars() {
        let word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '$';
        let joins = quote || word(c) && tokens.last().is_some_and(|token| token.chars().all(word));
        match tokens.last_mut().filter(|_| joins) {
            Some(token) => token.push(c),
            None => tokens.push(c.into()),
        }
        quote ^= c == '\'';
    }
    tokens
}
