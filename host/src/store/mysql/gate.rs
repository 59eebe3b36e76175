//! The wall: a guest's text must begin like a statement that only reads or changes rows.
//!
//! There is no second one behind it. Privileges protect no transaction here: what they refuse has committed first. The server
//! lets no other kind of statement begin with these words, and the prepared protocol takes one statement. `scanner.rs` has
//! taken comments away, so what is judged is what is sent.

use super::scanner::{self, Scanned, is_space};

const READS: [&str; 2] = ["SELECT", "VALUES"];
const OTHERS: [&str; 5] = ["DELETE", "INSERT", "REPLACE", "UPDATE", "WITH"];

/// The text to send.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Passed {
    pub(super) text: String,
    /// Which parameter (from 0) belongs to each place.
    pub(super) order: Vec<usize>,
    /// Whether it can only read. (A WITH may write.)
    pub(super) reads: bool,
}

/// Lets a statement over rows pass, or says why it may not.
pub(super) fn first_word(sql: &str) -> Result<Passed, String> {
    let Scanned { text, order } = scanner::scan(sql)?;
    let begins = text.trim_start_matches(|c| c == '(' || is_space(c));
    let word: String = begins.chars().take_while(|c| c.is_ascii_alphanumeric() || "_$".contains(*c)).collect();
    let word = word.to_ascii_uppercase();
    let reads = READS.contains(&word.as_str());
    if reads || OTHERS.contains(&word.as_str()) {
        return Ok(Passed { text, order, reads });
    }
    let shown: String = text.chars().take(20).collect();
    Err(format!(
        "a statement must begin with one of {}, {}; this one begins with \"{}\"",
        READS.join(", "),
        OTHERS.join(", "),
        shown.escape_debug()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passes_statements_over_rows_and_nothing_else() {
        for sql in ["select 1", " -- x\nSELECT 1", "(SELECT 1)", "/* a */ values (1)", "( (SELECT 1) )", "SELECT 1;"] {
            assert!(first_word(sql).expect(sql).reads, "{sql}");
        }
        for sql in ["WITH x AS (SELECT 1) SELECT 1", "insert into t values (1)", "REPLACE INTO t VALUES (1)"] {
            assert!(!first_word(sql).expect(sql).reads, "{sql}");
        }
        for sql in [
            "COMMIT",
            "BEGIN",
            "ROLLBACK",
            "/* */ COMMIT",
            "/*!COMMIT*/",
            "/*M!COMMIT*/",
            "(COMMIT)",
            "SET autocommit = 1",
            "DO SLEEP(1)",
            "CALL p()",
            "HANDLER t OPEN",
            "EXECUTE IMMEDIATE 'COMMIT'",
            "EXPLAIN SELECT 1",
            "SELECTED",
            "SELECT_ 1",
            "SELECT$ 1",
            "",
            ";",
            "; SELECT 1",
            "\u{feff}SELECT 1",
            "\u{a0}COMMIT",
            "`SELECT`",
            "'SELECT'",
        ] {
            assert!(first_word(sql).is_err(), "{sql:?}");
        }
    }
}
