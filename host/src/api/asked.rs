//! What the headers of a message say: to Semel, and to the function.

use std::time::Duration;

use axum::http::{HeaderMap, StatusCode};
use sha2::{Digest, Sha256};

use super::Problem;
use crate::manifest::parse_span;
use crate::message::Header;

/// Longest time that a request may wait for its answer.
const LONGEST_WAIT: u64 = 60;
/// Longest group key, in bytes.
const LONGEST_GROUP: usize = 255;

/// What the headers of a message ask of Semel.
pub(super) struct Asked {
    pub(super) key: Option<String>,
    pub(super) group: Option<String>,
    pub(super) delay: Duration,
    pub(super) priority: i32,
    pub(super) wait: Option<Duration>,
}

impl Asked {
    pub(super) fn read(headers: &HeaderMap) -> Result<Self, Problem> {
        let bad = |what: &str| Problem::new(StatusCode::BAD_REQUEST, what);
        let key = text_header(headers, "idempotency-key")?;
        let visible = |key: &String| (1..=255).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_graphic());
        if key.as_ref().is_some_and(|key| !visible(key)) {
            return Err(bad("Idempotency-Key must be 1 to 255 visible ASCII characters"));
        }
        let group = text_header(headers, "semel-group")?;
        if group.as_ref().is_some_and(|group| group.is_empty() || group.len() > LONGEST_GROUP) {
            return Err(bad("Semel-Group must be 1 to 255 bytes"));
        }
        let delay = match text_header(headers, "semel-delay")? {
            Some(text) => parse_span(&text).map_err(|e| bad(&format!("Semel-Delay: {e}")))?,
            None => Duration::ZERO,
        };
        let priority = match text_header(headers, "semel-priority")? {
            Some(text) => text.parse().map_err(|_| bad("Semel-Priority must be a whole number"))?,
            None => 0,
        };
        Ok(Self { key, group, delay, priority, wait: wait(headers)? })
    }
}

/// `Prefer: wait=10` (RFC 7240).
fn wait(headers: &HeaderMap) -> Result<Option<Duration>, Problem> {
    let preferences = headers.get_all("prefer").iter().filter_map(|value| value.to_str().ok());
    let wait = preferences.flat_map(|value| value.split([',', ';'])).find_map(|item| {
        let (name, value) = item.split_once('=')?;
        name.trim().eq_ignore_ascii_case("wait").then(|| value.trim().trim_matches('"').to_owned())
    });
    let wrong = |_| Problem::new(StatusCode::BAD_REQUEST, "Prefer: wait must be a whole number of seconds");
    wait.map(|seconds| seconds.parse().map(|s: u64| Duration::from_secs(s.min(LONGEST_WAIT))).map_err(wrong))
        .transpose()
}

pub(super) fn text_header(headers: &HeaderMap, name: &str) -> Result<Option<String>, Problem> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let bad = |why: &str| Problem::new(StatusCode::BAD_REQUEST, format!("header {name}: {why}"));
    if values.next().is_some() {
        return Err(bad("given more than once"));
    }
    value.to_str().map(|text| Some(text.to_owned())).map_err(|_| bad("must be visible ASCII"))
}

/// What "the same request" means for an idempotency key: content type, path with query, and body.
pub(super) fn fingerprint(content_type: Option<&str>, path: &str, body: &[u8]) -> Vec<u8> {
    let mut hash = Sha256::new();
    for part in [content_type.unwrap_or_default().as_bytes(), path.as_bytes(), body] {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hash.finalize().to_vec()
}

/// What goes along with the message: neither what belongs to the connection, nor what Semel itself reads or sets, nor
/// the sender's credentials.
pub(super) fn producer_headers(headers: &HeaderMap) -> Vec<Header> {
    const OWN: [&str; 14] = [
        "authorization",
        "connection",
        "content-length",
        "content-type",
        "expect",
        "host",
        "idempotency-key",
        "keep-alive",
        "prefer",
        "proxy-authorization",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    ];
    headers
        .iter()
        .filter(|(name, _)| !OWN.contains(&name.as_str()) && !name.as_str().starts_with("semel-"))
        .map(|(name, value)| (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_tells_apart_what_is_not_the_same() {
        let one = fingerprint(Some("a"), "/fn/x", b"body");
        assert_eq!(one, fingerprint(Some("a"), "/fn/x", b"body"));
        assert_ne!(one, fingerprint(Some("b"), "/fn/x", b"body"));
        assert_ne!(one, fingerprint(Some("a"), "/fn/x?y", b"body"));
        assert_ne!(one, fingerprint(Some("a"), "/fn/x", b"other"));
        assert_ne!(fingerprint(Some("ab"), "/", b""), fingerprint(Some("a"), "/", b"b"));
    }
}
