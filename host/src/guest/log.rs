//! `log`: lines for people, kept with the attempt whatever its outcome. Nothing here reaches the transaction.

use super::Times;
use super::bindings::semel::function::log as wit;
use crate::message::LogLine;

/// Bytes of one line that are kept.
const LONGEST_LINE: usize = 16 << 10;
/// Lines of one attempt that are kept.
const MOST_LINES: usize = 1000;
/// Bytes of all lines of one attempt, with their fields and what it takes to hold them, that are kept.
const MOST_BYTES: usize = 256 << 10;

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
    text.truncate(text.floor_char_boundary(longest));
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
        fields: Vec<(String, String)>,
    ) -> wasmtime::Result<()> {
        let message = cut(message, LONGEST_LINE);
        let size = 64 + message.len() + fields.iter().map(|(name, value)| 64 + name.len() + value.len()).sum::<usize>();
        if self.lines.len() >= MOST_LINES || self.bytes + size > MOST_BYTES {
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
