//! The statements of an app's migration, one by one: each is a commit of its own. Pure.

/// What a migration cannot say, since there is no transaction around it, or since it is no concern of an app's tables.
const FORBIDDEN: [&str; 12] =
    ["BEGIN", "START", "COMMIT", "ROLLBACK", "SAVEPOINT", "RELEASE", "XA", "LOCK", "UNLOCK", "USE", "SET", "DELIMITER"];

/// Splits a text at each `;` that is in no string, name or comment. Says what cannot be run.
pub(super) fn split(text: &str) -> Result<Vec<&str>, String> {
    let mut statements = Vec::new();
    let (mut start, mut place) = (0, 0);
    while place < text.len() {
        place = match skip(text, place)? {
            Some(end) => end,
            None if text[place..].starts_with(';') => {
                statements.push(&text[start..place]);
                start = place + 1;
                start
            }
            None => place + text[place..].chars().next().map_or(1, char::len_utf8),
        };
    }
    statements.push(&text[start..]);
    let mut kept = Vec::new();
    for statement in statements.into_iter().map(str::trim) {
        let word = first_word(statement)?;
        if word.is_empty() {
            continue; // Nothing but comments.
        }
        if FORBIDDEN.contains(&word.as_str()) {
            return Err(format!("{word}: each statement of a migration commits by itself; leave it out"));
        }
        other_engine(statement)?;
        kept.push(statement);
    }
    Ok(kept)
}

/// Where the string, quoted name or comment ends that begins here, if one does.
fn skip(text: &str, place: usize) -> Result<Option<usize>, String> {
    let rest = &text[place..];
    let line = |rest: &str| place + rest.find('\n').map_or(rest.len(), |end| end + 1);
    if rest.starts_with('#') || (rest.starts_with("--") && rest[2..].chars().next().is_none_or(char::is_whitespace)) {
        return Ok(Some(line(rest)));
    }
    if rest.starts_with("/*!") || rest.starts_with("/*M!") {
        return Err("a comment that is run (/*! … */) is hard to read for everybody: write it as a statement".into());
    }
    if let Some(comment) = rest.strip_prefix("/*") {
        let end = comment.find("*/").ok_or("a comment /* has no end")?;
        return Ok(Some(place + 2 + end + 2));
    }
    let Some(quote) = rest.chars().next().filter(|c| ['\'', '"', '`'].contains(c)) else { return Ok(None) };
    let mut chars = rest.char_indices().skip(1);
    while let Some((at, c)) = chars.next() {
        if c == '\\' && quote != '`' {
            chars.next();
        } else if c == quote {
            return Ok(Some(place + at + 1)); // A doubled one begins the next.
        }
    }
    Err(format!("a {quote} has no end"))
}

/// The first word that is not in a comment, in capitals.
fn first_word(statement: &str) -> Result<String, String> {
    let mut place = 0;
    while let Some(c) = statement[place..].chars().next() {
        if c.is_whitespace() {
            place += c.len_utf8();
            continue;
        }
        match skip(statement, place)? {
            Some(end) if !['\'', '"', '`'].contains(&c) => place = end,
            _ => break,
        }
    }
    let word: String = statement[place..].chars().take_while(char::is_ascii_alphabetic).collect();
    if word.is_empty() && !statement[place..].is_empty() {
        return Ok("?".into());
    }
    Ok(word.to_ascii_uppercase())
}

/// Refuses `ENGINE = …` that is not `InnoDB`: what a table keeps at a rollback is no effect of a transaction.
fn other_engine(statement: &str) -> Result<(), String> {
    let mut place = 0;
    let mut words = Vec::new();
    while let Some(c) = statement[place..].chars().next() {
        if let Some(end) = skip(statement, place)? {
            place = end;
            continue;
        }
        let word: String = statement[place..].chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        place += if word.is_empty() { c.len_utf8() } else { word.len() };
        if !word.is_empty() {
            words.push(word.to_ascii_uppercase());
        }
    }
    let create = matches!(words.first().map(String::as_str), Some("CREATE" | "ALTER"));
    for pair in words.windows(2).filter(|_| create) {
        let known =
            ["MYISAM", "ARIA", "MEMORY", "HEAP", "CSV", "ARCHIVE", "BLACKHOLE", "MERGE", "MRG_MYISAM", "CONNECT"];
        if pair[0] == "ENGINE" && known.contains(&pair[1].as_str()) {
            return Err(format!("ENGINE = {}: what is in such a table stays there at a rollback; use InnoDB", pair[1]));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::split;

    #[test]
    fn a_text_is_split_where_a_statement_ends() {
        let text = "-- one; two\nCREATE TABLE a (b TEXT DEFAULT ';''\\';', `c;` INT) /* ; */;\n\n# x;\nINSERT INTO a VALUES (\"ä;\");;";
        let found = split(text).expect("a list");
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].ends_with("/* ; */") && found[1].ends_with("(\"ä;\")"), "{found:?}");
        assert_eq!(split("  -- nothing\n").expect("a list"), [""; 0]);
    }

    #[test]
    fn what_cannot_be_run_is_refused() {
        for text in [
            "commit",
            "/* a */ Begin",
            "SELECT 'a",
            "SELECT 1 /* a",
            "/*!50000 COMMIT */",
            "CREATE TABLE a (b INT) ENGINE=MyISAM",
            "ALTER TABLE a engine aria",
        ] {
            assert!(split(text).is_err(), "{text}");
        }
        for text in ["CREATE TABLE a (b INT) ENGINE = InnoDB", "INSERT INTO engine (memory) VALUES ('ENGINE = MyISAM')"]
        {
            assert!(split(text).is_ok(), "{text}");
        }
    }
}
