//! The lines of a body, as they come: never more of it in memory than the longest line and what the network brought at once.

use std::time::Duration;

use axum::body::{Body, BodyDataStream, Bytes};
use axum::http::StatusCode;
use bytes::BytesMut;
use futures_util::{FutureExt as _, StreamExt as _};
use tokio::time::timeout;

use crate::api::Problem;

pub(super) struct Lines {
    data: BodyDataStream,
    buffer: BytesMut,
    /// So much of the buffer holds no end of a line.
    seen: usize,
    /// The line that is being read is too long: what there was of it is gone.
    skipping: bool,
    ended: bool,
    longest: usize,
    patience: Duration,
}

pub(super) enum Next {
    /// A line without its end, or why it is none.
    Line(Result<Bytes, Problem>),
    /// The client has sent no more so far.
    NotYet,
    End,
}

impl Lines {
    /// Of so many bytes at most, each.
    pub(super) fn new(body: Body, longest: usize, patience: Duration) -> Self {
        let (buffer, data) = (BytesMut::new(), body.into_data_stream());
        Self { data, buffer, seen: 0, skipping: false, ended: false, longest, patience }
    }

    /// Waits for the next line. May be dropped and asked again.
    pub(super) async fn next(&mut self) -> Result<Next, Problem> {
        loop {
            if let Some(next) = self.take() {
                return Ok(next);
            }
            let late = |_| Problem::new(StatusCode::REQUEST_TIMEOUT, "the body did not arrive in time");
            let chunk = timeout(self.patience, self.data.next()).await.map_err(late)?;
            self.add(chunk)?;
        }
    }

    /// The next line, if it is there already.
    pub(super) async fn at_hand(&mut self) -> Result<Next, Problem> {
        loop {
            if let Some(next) = self.take() {
                return Ok(next);
            }
            let mut chunk = self.data.next().now_or_never();
            if chunk.is_none() {
                // The connection is read by the task that runs this: it gets its turn.
                tokio::task::yield_now().await;
                chunk = self.data.next().now_or_never();
            }
            match chunk {
                Some(chunk) => self.add(chunk)?,
                None => return Ok(Next::NotYet),
            }
        }
    }

    fn add(&mut self, chunk: Option<Result<Bytes, axum::Error>>) -> Result<(), Problem> {
        match chunk {
            Some(Ok(bytes)) => self.buffer.extend_from_slice(&bytes),
            Some(Err(_)) => return Err(Problem::new(StatusCode::BAD_REQUEST, "the body broke off")),
            None => self.ended = true,
        }
        Ok(())
    }

    fn take(&mut self) -> Option<Next> {
        let found = memchr::memchr(b'\n', &self.buffer[self.seen..]).map(|at| self.seen + at);
        let line = match found {
            Some(end) => {
                let line = self.buffer.split_to(end + 1);
                self.seen = 0;
                line.freeze().slice(..end)
            }
            None if self.ended && self.buffer.is_empty() && !self.skipping => return Some(Next::End),
            None if self.ended => {
                self.seen = 0;
                self.buffer.split().freeze() // The last one needs no end.
            }
            None => {
                if self.skipping || self.buffer.len() > self.longest {
                    self.skipping = true;
                    self.buffer.clear();
                }
                self.seen = self.buffer.len();
                return None;
            }
        };
        let too_long = std::mem::take(&mut self.skipping) || line.len() > self.longest;
        let what = || format!("a line has at most {} bytes", self.longest);
        Some(Next::Line(if too_long { Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, what())) } else { Ok(line) }))
    }
}
