//! Standard output and standard error: each line is a line of the log, within the log's bounds.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::io::AsyncWrite;
use wasmtime_wasi::async_trait;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamResult};

use crate::engine::limits::LINE_BYTES;
use crate::guest::log::Log;

/// One of the two. Its clones write to the same line.
#[derive(Clone)]
pub(super) struct Output {
    log: Log,
    level: &'static str,
    line: Arc<Mutex<Vec<u8>>>,
}

impl Output {
    pub(super) fn new(log: &Log, level: &'static str) -> Self {
        Self { log: log.clone(), level, line: Arc::default() }
    }

    /// What was written last, if it has no line break.
    pub(super) fn end(&self) {
        let mut line = self.line();
        if !line.is_empty() {
            self.keep(&mut line);
        }
    }

    fn keep(&self, line: &mut Vec<u8>) {
        let text = String::from_utf8_lossy(line.strip_suffix(b"\r").unwrap_or(line)).into_owned();
        line.clear();
        self.log.keep(self.level, text, Vec::new());
    }

    fn line(&self) -> MutexGuard<'_, Vec<u8>> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl IsTerminal for Output {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for Output {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(tokio::io::sink()) // For WASI 0.3, which is not linked.
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

impl OutputStream for Output {
    fn write(&mut self, bytes: bytes::Bytes) -> StreamResult<()> {
        let mut line = self.line();
        for byte in bytes {
            if byte == b'\n' {
                self.keep(&mut line);
            } else if line.len() < LINE_BYTES {
                line.push(byte); // What is longer is cut, as in any line of the log.
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(()) // A line is kept when it is complete, however often what is there of it was flushed.
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(64 << 10)
    }
}

#[async_trait]
impl Pollable for Output {
    async fn ready(&mut self) {}
}
