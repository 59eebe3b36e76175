//! A line of a request with many messages: what it may hold, and the request that it stands for.

use std::collections::BTreeMap;

use axum::body::Bytes;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Deserialize;

use crate::api::Problem;

/// Headers of a line; a request has no more.
const MOST_HEADERS: usize = 100;

/// Everything may be left out.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Line {
    body: Option<String>,
    body_base64: Option<String>,
    content_type: Option<String>,
    key: Option<String>,
    group: Option<String>,
    delay: Option<String>,
    priority: Option<i32>,
    #[serde(default)]
    headers: Headers,
}

/// An object, or a list of pairs where a name comes more than once or their order matters.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Headers {
    Object(BTreeMap<String, String>),
    Pairs(Vec<(String, String)>),
}

impl Default for Headers {
    fn default() -> Self {
        Self::Pairs(Vec::new())
    }
}

impl Line {
    pub(super) fn read(text: &[u8]) -> Result<Self, Problem> {
        if !text.trim_ascii_start().starts_with(b"{") {
            return Err(bad("the line is not a JSON object of a message")); // A list would be read as its fields.
        }
        serde_json::from_slice(text).map_err(|error| {
            // It counts lines of its own.
            let what = error.to_string();
            let what = what.split(" at line ").next().unwrap_or_default();
            bad(format!("the line is not a JSON object of a message: {what} (column {})", error.column()))
        })
    }

    /// Headers and body of the request that would send this message alone.
    pub(super) fn request(self, most: usize) -> Result<(HeaderMap, Bytes), Problem> {
        let body = match (self.body, self.body_base64) {
            (Some(_), Some(_)) => return Err(bad("body and body_base64 cannot both be there")),
            (None, Some(text)) => BASE64.decode(text).map_err(|_| bad("body_base64 is not base64"))?.into(),
            (body, None) => body.unwrap_or_default().into(),
        };
        let own = [
            ("content-type", self.content_type),
            ("idempotency-key", self.key),
            ("semel-group", self.group),
            ("semel-delay", self.delay),
            ("semel-priority", self.priority.map(|priority| priority.to_string())),
        ];
        let own = own.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
        let given = match self.headers {
            Headers::Object(pairs) => pairs.into_iter().collect(),
            Headers::Pairs(pairs) => pairs,
        };
        let (mut headers, mut bytes) = (HeaderMap::new(), 0);
        for (name, value) in own.chain(given) {
            bytes += name.len() + value.len();
            let (Ok(known), Ok(value)) = (HeaderName::try_from(&name), HeaderValue::try_from(value)) else {
                return Err(bad(format!("{name:?} is no header, or its value is none")));
            };
            if headers.len() >= MOST_HEADERS || bytes > most {
                let what = format!("a message has at most {MOST_HEADERS} headers with {most} bytes");
                return Err(Problem::new(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, what));
            }
            headers.append(known, value);
        }
        Ok((headers, body))
    }
}

fn bad(what: impl Into<String>) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, what)
}
