//! The log on standard error: one line per event, whatever is in it.
//!
//! Texts of guests, of requests and of errors get into it. None of them can begin a line of its own, speak to the
//! terminal, or be longer than a screen or two.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::panic;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

/// Bytes of one line that are kept, before its escapes.
const LONGEST_LINE: usize = 8 << 10;

/// What is logged if nobody says otherwise. What goes wrong with a broker is said once, by who uses it.
const USUAL: &str = "info,async_nats=off,lapin=off";

/// Sends events (`SEMEL_LOG`, or what is usual) and panics to standard error.
pub fn start() {
    let filter = EnvFilter::try_from_env("SEMEL_LOG").unwrap_or_else(|_| EnvFilter::new(USUAL));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(Lines).with_ansi(false).init();
    panic::set_hook(Box::new(|panic| {
        let thread = std::thread::current();
        let text = format!("thread {} {panic}\n{}", thread.name().unwrap_or("?"), std::backtrace::Backtrace::capture());
        let _ = Line.write(text.as_bytes()); // There is nobody left to tell.
    }));
}

struct Lines;

struct Line;

impl MakeWriter<'_> for Lines {
    type Writer = Line;

    fn make_writer(&self) -> Line {
        Line
    }
}

/// Is given a whole event at a time.
impl Write for Line {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let mut text = line(&String::from_utf8_lossy(event));
        text.push('\n');
        io::stderr().lock().write_all(text.as_bytes())?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

/// `event` as one line: escaped, and cut.
fn line(event: &str) -> String {
    let event = event.trim_end();
    let kept = &event[..event.floor_char_boundary(LONGEST_LINE)];
    let mut line = escaped(kept, |_| false);
    if kept.len() < event.len() {
        let _ = write!(line, "… ({} bytes cut)", event.len() - kept.len()); // Writing to a string cannot fail.
    }
    line
}

/// `text` without what would speak to a terminal. It keeps its lines.
pub(crate) fn printable(text: &str) -> String {
    escaped(text, |c| c == '\n')
}

fn escaped(text: &str, keep: impl Fn(char) -> bool) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        if keep(c) || !speaks(c) {
            escaped.push(c);
        } else {
            escaped.extend(c.escape_default());
        }
    }
    escaped
}

/// Control characters, further ends of lines, and what turns the direction of the text around.
fn speaks(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{2028}' | '\u{2029}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_line() {
        assert_eq!(line("a\tb\r\n2026 ERROR forged\n"), r"a\tb\r\n2026 ERROR forged");
        assert_eq!(line("\u{1b}[31mred\u{9b}2J\u{7}"), r"\u{1b}[31mred\u{9b}2J\u{7}");
        assert_eq!(line("ü 🦀 \u{202e}x\u{2028}y"), r"ü 🦀 \u{202e}x\u{2028}y");
        let long = line(&"ä".repeat(LONGEST_LINE));
        assert!(long.ends_with("(8192 bytes cut)") && long.len() < LONGEST_LINE + 64, "{}", long.len());
        assert_eq!(printable("one\ntwo\u{1b}c"), "one\ntwo\\u{1b}c");
    }
}
