//! `POST /fn/{name}:batch`: many messages in one request, a line each, read and answered as they come.
//!
//! A line is a request of its own: it goes the way of `send.rs`, and its answer says what that of a single message would have
//! said. Lines that are there at once share a commit.

use std::convert::Infallible;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::{StreamExt as _, stream};
use serde_json::json;
use tokio::time::{Instant, sleep_until};

use super::asked::Asked;
use super::send::{self, Ready, Sent, Taken};
use super::{Api, Problem};
use crate::engine::catalog::Function;

mod line;
mod lines;

use line::Line;
use lines::{Lines, Next};

const NDJSON: &str = "application/x-ndjson";
/// Lines, and nothing that is longer than one message may be, are enqueued at once.
const MOST: usize = 1000;
/// What is said of one message, and so not of a request with many.
const OF_A_LINE: [(&str, &str); 4] =
    [("idempotency-key", "key"), ("semel-group", "group"), ("semel-delay", "delay"), ("semel-priority", "priority")];

/// Answers when the first lines are in the database, and says of the others what becomes of them.
pub(super) async fn accept(api: Api, name: &str, request: Request) -> Result<Response, Problem> {
    let function = send::find(&api, name).await?;
    let (parts, body) = request.into_parts();
    check_head(&parts.headers)?;
    let lines = Lines::new(body, api.limits.body, api.limits.patience);
    let (until, stopping) = (Instant::now() + api.limits.request, api.stopping.clone());
    let mut batch = Batch { api, function, lines, stopping, until, number: 0, broken: None };
    let first = batch.answer().await?;
    let rest = stream::unfold((batch, first.is_some()), |(mut batch, more)| async move {
        if !more {
            return None;
        }
        match batch.answer().await {
            Ok(answers) => Some((answers?, (batch, true))),
            // Too late for another status: the last line says why there are no more.
            Err(problem) => Some((batch.said(batch.number + 1, &problem).into(), (batch, false))),
        }
    });
    let answers = stream::iter(first).chain(rest).map(Ok::<Bytes, Infallible>);
    Ok((StatusCode::OK, [(header::CONTENT_TYPE, NDJSON)], Body::from_stream(answers)).into_response())
}

fn check_head(headers: &HeaderMap) -> Result<(), Problem> {
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let media_type = content_type.split(';').next().unwrap_or_default().trim();
    if !media_type.eq_ignore_ascii_case(NDJSON) {
        let what = format!("send many messages as Content-Type: {NDJSON}, a JSON object on each line");
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, what));
    }
    let bad = |what: String| Err(Problem::new(StatusCode::BAD_REQUEST, what));
    if let Some((name, field)) = OF_A_LINE.iter().find(|(name, _)| headers.contains_key(*name)) {
        return bad(format!("the header {name} is of one message: write it into the lines as \"{field}\""));
    }
    if Asked::read(headers)?.wait.is_some() {
        return bad("Prefer: wait is for one message; with many nobody waits for their ends".into());
    }
    Ok(())
}

/// A request with many messages.
struct Batch {
    api: Api,
    function: Arc<Function>,
    lines: Lines,
    stopping: tokio::sync::watch::Receiver<bool>,
    /// When nothing more is read.
    until: Instant,
    /// Lines that were read.
    number: u64,
    /// Why no more can be read.
    broken: Option<Problem>,
}

impl Batch {
    /// Takes the next lines in, in one commit, and says what became of each; nothing after the last.
    async fn answer(&mut self) -> Result<Option<Bytes>, Problem> {
        let (name, first) = (self.function.manifest().name.clone(), self.number + 1);
        let mut lines = Vec::new();
        let (mut accepts, mut spans) = (Vec::new(), Vec::new());
        for line in self.read().await? {
            self.number += 1;
            lines.push(line.and_then(|line| self.prepare(&line)).map(|Ready { accept, span }| {
                accepts.push(accept);
                spans.push(span);
            }));
        }
        if lines.is_empty() {
            return Ok(None);
        }
        let mut answers = match accepts.is_empty() {
            true => Vec::new(),
            false => self.api.ingest.accept(accepts).await,
        }
        .into_iter();
        drop(spans);
        let mut said = String::new();
        for (number, line) in (first..).zip(lines) {
            match line.and_then(|()| send::taken(&self.api, &name, answers.next())) {
                Ok(Taken { id, duplicate, .. }) => {
                    let document = json!({ "status": 202, "id": id, "duplicate": duplicate });
                    said.push_str(&format!("{document}\n"));
                }
                Err(problem) => said.push_str(&self.said(number, &problem)),
            }
        }
        Ok(Some(said.into()))
    }

    /// Waits for a line, and takes what is there behind it. Nothing after the last.
    async fn read(&mut self) -> Result<Vec<Result<Bytes, Problem>>, Problem> {
        if let Some(problem) = self.broken.take() {
            return Err(problem);
        }
        let (mut found, mut bytes) = (Vec::new(), 0);
        let first = tokio::select! {
            biased;
            _ = self.stopping.wait_for(|stopping| *stopping) => return Err(Problem::unavailable("this host is stopping")),
            () = sleep_until(self.until) => {
                let longest = self.api.limits.request;
                return Err(Problem::unavailable(format!("this took longer than {longest:?}; send the rest again")));
            }
            first = self.lines.next() => first?,
        };
        let mut next = Ok(first);
        loop {
            match next {
                Ok(Next::Line(line)) => {
                    bytes += line.as_ref().map_or(0, Bytes::len);
                    found.push(line);
                }
                Ok(Next::NotYet | Next::End) => break,
                Err(problem) => {
                    self.broken = Some(problem); // What came before it came whole.
                    break;
                }
            }
            if found.len() >= MOST || bytes >= self.api.limits.body {
                break;
            }
            next = self.lines.at_hand().await;
        }
        Ok(found)
    }

    /// Makes a message of a line, as if it had come alone.
    fn prepare(&self, line: &[u8]) -> Result<Ready, Problem> {
        let (headers, body) = Line::read(line)?.request(self.api.limits.head)?;
        let asked = Asked::read(&headers)?;
        if asked.wait.is_some() {
            return Err(Problem::new(StatusCode::BAD_REQUEST, "Prefer: wait is for one message that is sent alone"));
        }
        let path = format!("/fn/{}", self.function.manifest().name);
        let sent = Sent { path: &path, headers: &headers, host_headers: Vec::new(), body };
        send::prepare(&self.api, &self.function, asked, sent)
    }

    /// The answer to a line that was not taken in.
    fn said(&self, number: u64, problem: &Problem) -> String {
        let mut document = problem.document();
        document["line"] = json!(number);
        format!("{document}\n")
    }
}
