//! The first wall: a guest's text must begin like a statement that only reads or changes rows.
//!
//! No parser: Postgres' grammar lets no other kind of statement begin with these words, and the extended protocol takes one
//! statement. Comments in front are cut off, and what is left is what is sent, so a mistake in the cutting can only refuse.

const READS: [&str; 3] = ["SELECT", "TABLE", "VALUES"];
const OTHERS: [&str; 5] = ["DELETE", "INSERT", "MERGE", "UPDATE", "WITH"];

/// The text to send.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Passed<'a> {
    pub(super) text: &'a str,
    /// Whether it can only read, so that a cursor may be opened on it. (A WITH may write.)
    pub(super) reads: bool,
}

/// Lets a statement over rows pass, or says why it may not.
pub(super) fn first_word(sql: &str) -> Result<Passed<'_>, String> {
    if sql.contains('\0') {
        return Err("the statement contains a NUL character".into());
    }
    let text = strip(sql);
    let word: String = text.chars().take_while(char::is_ascii_alphabetic).collect();
    let word = word.to_ascii_uppercase();
    let reads = READS.contains(&word.as_str()) || text.starts_with('(');
    if reads || OTHERS.contains(&word.as_str()) {
        return Ok(Passed { text, reads });
    }
    let shown: String = text.chars().take(20).collect();
    Err(format!(
        "a statement must begin with one of {}, {}; this one begins with \"{}\"",
        READS.join(", "),
        OTHERS.join(", "),
        shown.escape_debug()
    ))
}

/// Without white space and comments in front.
fn strip(sql: &str) -> &str {
    let mut text = sql;
    loop {
        text = text.trim_start_matches([' ', '\t', '\r', '\n', '\u{c}']);
        if let Some(rest) = text.strip_prefix("--") {
            text = rest.find('\n').map_or("", |end| &rest[end..]);
        } else if let Some(rest) = text.strip_prefix("/*") {
            text = rest.find("*/").map_or("", |end| &rest[end + 2..]);
        } else {
            return text;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passes_statements_over_rows_and_nothing_else() {
        for sql in ["select 1", " -- x\nTABLE t", "(SELECT 1)", "/* a */ values (1)"] {
            assert!(first_word(sql).expect(sql).reads, "{sql}");
        }
        for sql in ["WITH x AS (SELECT 1) SELECT 1", "insert into t values (1)", "MERGE INTO t"] {
            assert!(!first_word(sql).expect(sql).reads, "{sql}");
        }
        for sql in [
            "COMMIT",
            "END",
            "ROLLBACK",
            "/* */ COMMIT",
            "/* /* */ */ COMMIT",
            "SET x = 1",
            "DO $$ $$",
            "CALL f()",
            "COPY t TO STDOUT",
            "LISTEN a",
            "DECLARE c CURSOR FOR SELECT 1",
            "PREPARE a AS SELECT 1",
            "EXPLAIN SELECT 1",
            "SELECTED",
            "",
            ";",
            "; SELECT 1",
            "\u{feff}SELECT 1",
            "SELECT\x001",
            "\u{a0}COMMIT",
            "ALTER ROLE x",
        ] {
            assert!(first_word(sql).is_err(), "{sql:?}");
        }
    }
}
