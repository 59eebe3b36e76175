//! The first walls: a guest's text must begin like a statement that only reads or changes rows, and name nothing that
//! is not the app's.
//!
//! No parser: SQLite's grammar lets no other kind of statement begin with these words, and a second statement is
//! refused when the first one is prepared (`guest_sql.rs`). Comments in front are cut off, and what is left is what is
//! sent, so a mistake in the cutting can only refuse.

const FIRST_WORDS: [&str; 7] = ["DELETE", "INSERT", "REPLACE", "SELECT", "UPDATE", "VALUES", "WITH"];

/// The text to send, if it begins like a statement over rows, or why it is not allowed.
pub(super) fn first_word(sql: &str) -> Result<&str, String> {
    if sql.contains('\0') {
        return Err("the statement contains a NUL character".into());
    }
    let text = strip(sql);
    let word: String = text.chars().take_while(char::is_ascii_alphabetic).collect();
    if FIRST_WORDS.contains(&word.to_ascii_uppercase().as_str()) {
        return Ok(text);
    }
    let shown: String = text.chars().take(20).collect();
    Err(format!(
        "a statement must begin with one of {}; this one begins with \"{}\"",
        FIRST_WORDS.join(", "),
        shown.escape_debug()
    ))
}

/// Deepest nesting of parentheses. SQLite parses by recursion: a text of nothing but `SELECT * FROM (` would take the
/// stack of its thread, and the host with it.
const DEEPEST: usize = 200;

/// What holds for every text of an app, also for its migrations: no names but its own, wherever they stand (SQLite does
/// not ask the authorizer about columns that a join compares by `USING`, nor about a table that a foreign key names), and
/// no nesting that takes the stack.
pub(super) fn check_text(sql: &str) -> Result<(), String> {
    const RESERVED: [&str; 3] = ["semel_", "sqlite_", "pragma_"];
    let reserved = |word: &str| RESERVED.iter().any(|prefix| word.to_ascii_lowercase().starts_with(prefix));
    let (words, depth) = scan(sql);
    if let Some(word) = words.into_iter().find(|word| reserved(word)) {
        return Err(format!("the name {word} is not the app's"));
    }
    if depth > DEEPEST {
        return Err(format!("parentheses are nested more than {DEEPEST} deep"));
    }
    Ok(())
}

/// Identifiers, quoted names and string literals (SQLite takes one for the other) without their quotes, and how deep
/// parentheses are nested.
fn scan(sql: &str) -> (Vec<String>, usize) {
    let mut words = Vec::new();
    let (mut depth, mut deepest) = (0_usize, 0);
    let mut rest = sql;
    while let Some(first) = rest.chars().next() {
        let end = match first {
            '-' if rest.starts_with("--") => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("/*") => rest[2..].find("*/").map_or(rest.len(), |end| end + 4),
            '\'' | '"' | '`' | '[' => {
                let (word, end) = quoted(rest, if first == '[' { ']' } else { first });
                words.push(word);
                end
            }
            _ if is_word(first) => {
                let end = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
                words.push(rest[..end].to_owned());
                end
            }
            _ => {
                match first {
                    '(' => depth += 1,
                    ')' => depth = depth.saturating_sub(1),
                    _ => {}
                }
                deepest = deepest.max(depth);
                first.len_utf8()
            }
        };
        rest = &rest[end..];
    }
    (words, deepest)
}

/// What stands between the quotes, and where the text goes on. A doubled quote stands for itself.
fn quoted(text: &str, close: char) -> (String, usize) {
    let mut word = String::new();
    let mut chars = text.char_indices().skip(1).peekable();
    while let Some((place, c)) = chars.next() {
        if c != close {
            word.push(c);
        } else if close != ']' && chars.peek().is_some_and(|(_, next)| *next == close) {
            word.push(c);
            chars.next();
        } else {
            return (word, place + c.len_utf8());
        }
    }
    (word, text.len())
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || c == '$' || !c.is_ascii()
}

/// Whether nothing follows a statement but the end: white space, comments, semicolons.
pub(super) fn is_blank(rest: &str) -> bool {
    let mut text = rest;
    loop {
        text = strip(text);
        match text.strip_prefix(';') {
            Some(further) => text = further,
            None => return text.is_empty(),
        }
    }
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
    fn passes_statements_over_rows() {
        assert_eq!(first_word("select 1"), Ok("select 1"));
        assert_eq!(
            first_word(" \n-- a comment; COMMIT\n/* and /* another */ WITH x AS (SELECT 1) SELECT * FROM x"),
            Ok("WITH x AS (SELECT 1) SELECT * FROM x")
        );
    }

    #[test]
    fn reads_names_as_sqlite_does() {
        for sql in [
            "SELECT * FROM semel_queue",
            "SELECT * FROM \"Semel_Queue\"",
            "SELECT * FROM [semel_queue]",
            "SELECT * FROM `semel_queue`",
            "SELECT * FROM 'semel_queue'",
            "SELECT 'it''s', * FROM semel_queue",
            "SELECT 1 -- '\n, * FROM semel_queue",
            "SELECT 1 /* ' */, * FROM semel_queue",
            "SELECT 1 /*/ semel_ */, * FROM semel_queue",
            "WITH c(secret) AS (SELECT x'00') SELECT hex(secret) FROM c FULL JOIN semel_store USING (secret)",
            "SELECT * FROM pragma_table_info('x')",
        ] {
            assert!(check_text(sql).is_err(), "{sql}");
        }
        for sql in [
            "SELECT 'about semel_queue'",
            "SELECT 1 -- semel_queue",
            "SELECT 1 /* semel_queue */",
            "SELECT my_semel_table, 'it''s', $1 FROM t WHERE a = 'x",
            "SELECT \"a\"\"semel_\"",
        ] {
            assert!(check_text(sql).is_ok(), "{sql}");
        }
    }

    #[test]
    fn refuses_what_is_nested_too_deep() {
        let nested = |depth: usize| format!("{}SELECT 1{}", "SELECT * FROM (".repeat(depth), ")".repeat(depth));
        assert!(check_text(&nested(DEEPEST)).is_ok());
        assert!(check_text(&nested(DEEPEST + 1)).is_err());
        assert!(check_text(&format!("SELECT '{}'", "(".repeat(1000))).is_ok());
    }

    #[test]
    fn knows_the_end() {
        for end in ["", ";", " ; -- done", ";; /* done */ ;\n", "-- COMMIT"] {
            assert!(is_blank(end), "{end:?}");
        }
        for more in ["; COMMIT", "/* */ COMMIT", "-- done\nCOMMIT", "x"] {
            assert!(!is_blank(more), "{more:?}");
        }
    }

    #[test]
    fn refuses_the_rest() {
        for sql in [
            "COMMIT",
            "end",
            "ROLLBACK",
            "BEGIN",
            "SAVEPOINT a",
            "RELEASE a",
            "PRAGMA synchronous=OFF",
            "ATTACH 'x' AS y",
            "DETACH y",
            "VACUUM",
            "CREATE TABLE t(a)",
            "DROP TABLE t",
            "ALTER TABLE t ADD b",
            "EXPLAIN SELECT 1",
            "ANALYZE",
            "REINDEX",
            "",
            ";",
            "; SELECT 1",
            "-- SELECT 1",
            "/* SELECT 1",
            "SELECTED 1",
            "\u{feff}SELECT 1",
            "SELECT\x001",
            "\u{a0}COMMIT",
            "(SELECT 1)",
        ] {
            assert!(first_word(sql).is_err(), "{sql:?}");
        }
    }
}
