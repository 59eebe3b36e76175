//! One walk over a guest's text, which knows strings, quoted names and comments: parameters become the server's, comments go,
//! and what would outlive the transaction, or hides from who reads it, is refused.
//!
//! `$1` becomes `?`, and the order of the parameters is said, since one may stand at several places. The server takes a `$` for
//! a part of a name: so `a$1` is a name, and `$1a` as well. The walk rests on the session's sql_mode, which no guest can
//! change: a backslash escapes in strings, `"` begins a string, `--` a comment only before white space.

/// A text for the server.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Scanned {
    pub(super) text: String,
    /// Which parameter (from 0) belongs to each `?`.
    pub(super) order: Vec<usize>,
}

/// Most parameters of a statement; the server's own limit.
const PARAMETERS: usize = 65_535;

struct Scanner<'a> {
    rest: &'a str,
    out: String,
    order: Vec<usize>,
    /// There was a semicolon: only spaces and comments may follow.
    over: bool,
}

/// Walks over a text, or says what in it cannot be.
pub(super) fn scan(sql: &str) -> Result<Scanned, String> {
    if sql.contains('\0') {
        return Err("the statement contains a NUL character".into());
    }
    let mut scanner = Scanner { rest: sql, out: String::with_capacity(sql.len()), order: Vec::new(), over: false };
    while let Some(first) = scanner.rest.chars().next() {
        scanner.step(first)?;
    }
    let Scanner { out, order, .. } = scanner;
    Ok(Scanned { text: out.trim_matches(is_space).to_owned(), order })
}

impl<'a> Scanner<'a> {
    fn step(&mut self, first: char) -> Result<(), String> {
        let rest = self.rest;
        match first {
            '#' => self.comment(line(rest)),
            '-' if rest.starts_with("--")
                && rest[2..].chars().next().is_none_or(|c| c == ' ' || c.is_ascii_control()) =>
            {
                self.comment(line(rest));
            }
            '/' if rest.starts_with("/*") => {
                let hidden = ["/*!", "/*M!", "/*m!", "/*+"].into_iter().find(|start| rest.starts_with(start));
                if let Some(start) = hidden {
                    return Err(format!("a comment that begins with {start} is run by the server: it is not allowed"));
                }
                let end = rest[2..].find("*/").ok_or("a comment has no end")?;
                self.comment(end + 4);
            }
            _ if is_space(first) => self.copy(1),
            _ if self.over => {
                return Err("there is something behind the first statement: send one statement at a time".into());
            }
            ';' => {
                self.take(1);
                self.over = true;
            }
            '\'' | '"' => self.copy(string(rest).ok_or("a string has no end")?),
            '`' => self.copy(quoted(rest).ok_or("a quoted name has no end")?),
            '?' => return Err("a parameter is written $1, $2, …; ? is none".into()),
            '@' if rest.starts_with("@@") => self.copy(2),
            '@' => return Err("a user variable (@name) outlives the transaction: it is not allowed".into()),
            ':' if rest.starts_with(":=") => return Err("an assignment (:=) is not allowed".into()),
            _ if is_of_name(first) => self.word()?,
            _ => self.copy(first.len_utf8()),
        }
        Ok(())
    }

    /// A name, a number, or a parameter.
    fn word(&mut self) -> Result<(), String> {
        let word = self.take(self.rest.find(|c: char| !is_of_name(c)).unwrap_or(self.rest.len()));
        if ["OUTFILE", "DUMPFILE"].iter().any(|file| word.eq_ignore_ascii_case(file)) {
            return Err(format!("{} writes a file: it is not allowed", word.to_ascii_uppercase()));
        }
        let number = word.strip_prefix('$').filter(|digits| !digits.is_empty());
        match number.filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit())) {
            None => self.out.push_str(word),
            Some(digits) => {
                let place: usize = digits.parse().unwrap_or(usize::MAX);
                if place == 0 || place > PARAMETERS {
                    return Err(format!("{word} is no parameter: they are $1 to ${PARAMETERS}"));
                }
                self.order.push(place - 1);
                self.out.push('?');
            }
        }
        Ok(())
    }

    fn take(&mut self, bytes: usize) -> &'a str {
        let (taken, rest) = self.rest.split_at(bytes);
        self.rest = rest;
        taken
    }

    fn copy(&mut self, bytes: usize) {
        let taken = self.take(bytes);
        self.out.push_str(taken);
    }

    /// A space is what a comment is to the server.
    fn comment(&mut self, bytes: usize) {
        self.take(bytes);
        self.out.push(' ');
    }
}

/// What the server lets stand in a name without quotes.
fn is_of_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || c == '$' || c >= '\u{80}'
}

/// What the server skips between words.
pub(super) fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\r' | '\u{b}' | '\u{c}')
}

/// Bytes of the string at the beginning, its quotes included.
fn string(text: &str) -> Option<usize> {
    let quote = *text.as_bytes().first()?;
    let mut bytes = text.bytes().enumerate().skip(1);
    while let Some((place, byte)) = bytes.next() {
        match byte {
            b'\\' => drop(bytes.next()?),
            // Doubled, it is a quote in the string: then another string begins here, and is copied as well.
            _ if byte == quote => return Some(place + 1),
            _ => {}
        }
    }
    None
}

fn quoted(text: &str) -> Option<usize> {
    text[1..].find('`').map(|end| end + 2)
}

/// Bytes to the end of the line, which is left.
fn line(text: &str) -> usize {
    text.find('\n').unwrap_or(text.len())
}

#[cfg(test)]
mod tests {
    use rand::seq::IndexedRandom as _;
    use rand::{RngExt as _, SeedableRng as _};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    #[track_caller]
    fn scanned(sql: &str, text: &str, order: &[usize]) {
        assert_eq!(scan(sql).expect(sql), Scanned { text: text.to_owned(), order: order.to_vec() });
    }

    #[test]
    fn parameters_are_found_where_they_are_some() {
        scanned("SELECT $1, $2, $1", "SELECT ?, ?, ?", &[0, 1, 0]);
        scanned("SELECT '$1', \"$1\", `$1`, $1", "SELECT '$1', \"$1\", `$1`, ?", &[0]);
        scanned("SELECT a$1, $1a, $, $a, 1$1, é$1", "SELECT a$1, $1a, $, $a, 1$1, é$1", &[]);
        scanned("SELECT 'it''s', 'a\\'$1', $2", "SELECT 'it''s', 'a\\'$1', ?", &[1]);
        scanned("SELECT 1 -- $1\n+ $1", "SELECT 1  \n+ ?", &[0]);
        scanned("SELECT 1 # $1\n+ $1", "SELECT 1  \n+ ?", &[0]);
        scanned("SELECT 1 /* $1 */ + $1", "SELECT 1   + ?", &[0]);
        scanned("SELECT 1 --\u{7f} ' $1\n+ $1", "SELECT 1  \n+ ?", &[0]);
        scanned("SELECT 1--$1", "SELECT 1--?", &[0]);
        scanned("SELECT -($1)", "SELECT -(?)", &[0]);
        scanned("SELECT @@version", "SELECT @@version", &[]);
        scanned(" SELECT 1 ; -- the end", "SELECT 1", &[]);
    }

    #[test]
    fn what_outlives_the_transaction_or_hides_is_refused() {
        for (sql, why) in [
            ("SELECT ?", "$1"),
            ("SELECT $0", "$0"),
            ("SELECT $99999999999999999999", "no parameter"),
            ("SELECT '", "no end"),
            ("SELECT 'a\\'", "no end"),
            ("SELECT \"a", "no end"),
            ("SELECT `a", "no end"),
            ("SELECT 1 /* a", "no end"),
            ("SELECT 1 /*! + 1 */", "/*!"),
            ("SELECT 1 /*M!100000 + 1 */", "/*M!"),
            ("SELECT /*+ SET_VAR(sort_buffer_size = 1) */ 1", "/*+"),
            ("SELECT @a", "@name"),
            ("SELECT @'a'", "@name"),
            ("SELECT 1 INTO @`a`", "@name"),
            ("SELECT a := 1", ":="),
            ("SELECT 1 INTO OutFile '/tmp/x'", "OUTFILE"),
            ("SELECT 1; COMMIT", "one statement"),
            ("SELECT 1; ;", "one statement"),
            ("SELECT 1; '", "one statement"),
            (("SELECT 1".to_owned() + &";".repeat(100_000)).as_str(), "one statement"),
            ("SELECT \0", "NUL"),
        ] {
            let refused = scan(sql).expect_err(sql);
            assert!(refused.contains(why), "{sql}: {refused}");
        }
    }

    /// Texts made of pieces of which it is known what they are.
    #[test]
    fn texts_of_known_pieces_come_out_as_they_should() {
        const OPAQUE: &[&str] = &[
            "'$1'",
            "'it''s $2'",
            "'\\'$3'",
            "'\\\\'",
            "\"$1\"",
            "\"a\"\"b $1\"",
            "`$1`",
            "`a``$1`",
            "a$1",
            "$a",
            "b$2c",
            "@@x",
            "'/*'",
            "'--'",
            "'#'",
            "\"'\"",
            "'?'",
            "'@'",
            "`:=`",
            "';'",
            "1.5",
            "+",
            "--1",
            "(",
            ")",
            ",",
            "é$9",
        ];
        const COMMENTS: &[&str] = &["/* $1 ' */", "-- $1 '\n", "# $1 `\n", "/**/", "/* ; ? @ */", "--\n", "--\t\"\n"];
        let seed = rand::random();
        eprintln!("seed {seed}");
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        for _ in 0..2000 {
            let (mut sql, mut text, mut order) = (String::from("SELECT"), String::from("SELECT"), Vec::new());
            for _ in 0..random.random_range(0..12) {
                match random.random_range(0..3) {
                    0 => {
                        let place = random.random_range(1..20_usize);
                        sql.push_str(&format!(" ${place} "));
                        text.push_str(" ? ");
                        order.push(place - 1);
                    }
                    1 => {
                        let piece = OPAQUE.choose(&mut random).copied().unwrap_or_default();
                        sql.push_str(&format!(" {piece} "));
                        text.push_str(&format!(" {piece} "));
                    }
                    _ => {
                        let piece = COMMENTS.choose(&mut random).copied().unwrap_or_default();
                        sql.push_str(&format!(" {piece} "));
                        let end = if piece.ends_with('\n') { "\n" } else { "" };
                        text.push_str(&format!("  {end} "));
                    }
                }
            }
            assert_eq!(scan(&sql), Ok(Scanned { text: text.trim_end().to_owned(), order }), "{sql:?}");
        }
    }
}
