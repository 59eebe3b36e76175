//! `log`: lines for people, kept with the attempt whatever its outcome. Nothing here reaches the transaction.

use std::sync::LazyLock;

use super::Times;
use super::bindings::semel::function::log as wit;
use crate::engine::limits::{LINE_BYTES, LOG_BYTES, MOST_FIELDS, MOST_LINES};
use crate::message::LogLine;

/// For tests: with `SEMEL_PANIC` set, a line of that text panics, as a defect of a host function would. Inert otherwise.
static PANIC: LazyLock<Option<String>> = LazyLock::new(|| std::env::var("SEMEL_PANIC").ok());

pub(crate) struct Log {
    times: Times,
    bytes: usize,
    pub(crate) lines: Vec<LogLine>,
    pub(crate) dropped: u32,
}

impl Log {
    pub(crate) fn new(times: Times) -> Self {
        Self { times, bytes: 0, lines: Vec::new(), dropped: 0 }
    }
}

/// The longest beginning of `text` that fits and ends between characters.
pub(crate) fn cut(mut text: String, longest: usize) -> String {
    if text.len() > longest {
        text.truncate(text.floor_char_boundary(longest));
        text.shrink_to_fit(); // What was cut off is not held either.
    }
    text
}

impl wit::Host for Log {
    async fn enabled(&mut self, level: wit::Level) -> wasmtime::Result<bool> {
        let _ = level; // All levels are kept.
        Ok(true)
    }

    async fn write(
        &mut self,
        level: wit::Level,
        message: String,
        mut fields: Vec<(String, String)>,
    ) -> wasmtime::Result<()> {
        assert_ne!(PANIC.as_ref(), Some(&message), "SEMEL_PANIC asked for this");
        let message = cut(message, LINE_BYTES);
        if fields.len() > MOST_FIELDS {
            fields.truncate(MOST_FIELDS);
            fields.shrink_to_fit();
        }
        let size = 64 + message.len() + fields.iter().map(|(name, value)| 64 + name.len() + value.len()).sum::<usize>();
        if self.lines.len() >= MOST_LINES || self.bytes + size > LOG_BYTES {
            self.dropped = self.dropped.saturating_add(1);
            return Ok(());
        }
        self.bytes += size;
        let level = match level {
            wit::Level::Trace => "trace",
            wit::Level::Debug => "debug",
            wit::Level::Info => "info",
            wit::Level::Warn => "warn",
            wit::Level::Error => "error",
        };
        self.lines.push(LogLine { at: self.times.now(), level, message, fields });
        Ok(())
    }
}
