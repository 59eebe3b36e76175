//! `log`: lines for people, kept with the attempt whatever its outcome. Nothing here reaches the transaction.

use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use super::Times;
use super::bindings::semel::function::log as wit;
use crate::engine::limits::{LINE_BYTES, LOG_BYTES, MOST_FIELDS, MOST_LINES};
use crate::message::LogLine;

/// For tests: with `SEMEL_PANIC` set, a line of that text panics, as a defect of a host function would. Inert otherwise.
static PANIC: LazyLock<Option<String>> = LazyLock::new(|| std::env::var("SEMEL_PANIC").ok());

/// The log of one attempt. Its clones are the same log: what the guest writes to its standard output comes here too.
#[derive(Clone)]
pub(crate) struct Log {
    times: Times,
    kept: Arc<Mutex<Kept>>,
}

#[derive(Default)]
struct Kept {
    bytes: usize,
    lines: Vec<LogLine>,
    dropped: u32,
}

impl Log {
    pub(crate) fn new(times: Times) -> Self {
        Self { times, kept: Arc::default() }
    }

    /// One line, within the bounds.
    pub(super) fn keep(&self, level: &'static str, message: String, mut fields: Vec<(String, String)>) {
        let message = cut(message, LINE_BYTES);
        if fields.len() > MOST_FIELDS {
            fields.truncate(MOST_FIELDS);
            fields.shrink_to_fit();
        }
        let size = 64 + message.len() + fields.iter().map(|(name, value)| 64 + name.len() + value.len()).sum::<usize>();
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.lines.len() >= MOST_LINES || kept.bytes + size > LOG_BYTES {
            kept.dropped = kept.dropped.saturating_add(1);
            return;
        }
        kept.bytes += size;
        kept.lines.push(LogLine { at: self.times.now(), level, message, fields });
    }

    /// The lines, and how many were counted instead of kept; the log is empty afterwards. Who wants to see them as they come
    /// finds them in the host's log, under the target `guest`.
    pub(crate) fn take(&self, function: &str) -> (Vec<LogLine>, u32) {
        let kept = std::mem::take(&mut *self.kept.lock().unwrap_or_else(PoisonError::into_inner));
        for LogLine { level, message, .. } in &kept.lines {
            tracing::debug!(target: "guest", function, level, "{message}");
        }
        (kept.lines, kept.dropped)
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
        fields: Vec<(String, String)>,
    ) -> wasmtime::Result<()> {
        assert_ne!(PANIC.as_ref(), Some(&message), "SEMEL_PANIC asked for this");
        let level = match level {
            wit::Level::Trace => "trace",
            wit::Level::Debug => "debug",
            wit::Level::Info => "info",
            wit::Level::Warn => "warn",
            wit::Level::Error => "error",
        };
        self.keep(level, message, fields);
        Ok(())
    }
}
