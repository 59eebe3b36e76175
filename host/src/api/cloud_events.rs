//! CloudEvents 1.0 over HTTP, binary and structured: what an event becomes as a message.
//!
//! `source` and `id` together are the idempotency key, attributes become headers `ce-…`, and the data becomes the body.
//! A request that says nothing of CloudEvents is left as it is.

use std::collections::BTreeMap;

use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode, header};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::Value;
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use super::Problem;
use crate::clock::Timestamp;
use crate::message::Header;

/// Longest name of an attribute, in characters. The standard asks for at most 20.
const LONGEST_NAME: usize = 64;
const REQUIRED: [&str; 4] = ["specversion", "id", "source", "type"];
const STRUCTURED: &str = "application/cloudevents+json";

/// What is in an event, in either mode.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct CloudEvent {
    /// Stands for source and id: equal for two events exactly if both are.
    pub(super) key: String,
    /// The attributes, as `ce-NAME`.
    pub(super) headers: Vec<Header>,
    pub(super) content_type: Option<String>,
    pub(super) body: Bytes,
}

/// The event in a request, if it says that it is one.
///
/// # Errors
/// 400 if it is not a right one, 415 for a batch and for formats other than JSON.
pub(super) fn read(headers: &HeaderMap, body: &Bytes) -> Result<Option<CloudEvent>, Problem> {
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let media_type = content_type.unwrap_or_default().split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if media_type == STRUCTURED {
        return structured(body).map(Some);
    }
    if media_type.starts_with("application/cloudevents") {
        let what =
            format!("{media_type} is not taken; send one CloudEvent at a time, in binary mode or as {STRUCTURED}");
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, what));
    }
    if !REQUIRED.iter().any(|name| headers.contains_key(format!("ce-{name}"))) {
        return Ok(None);
    }
    let attributes = binary(headers)?;
    event(attributes, content_type.map(str::to_owned), body.clone()).map(Some)
}

/// Binary mode: a header per attribute, percent-encoded, and the body is the data.
fn binary(headers: &HeaderMap) -> Result<BTreeMap<String, String>, Problem> {
    let mut attributes = BTreeMap::new();
    for (name, value) in headers {
        let Some(name) = name.as_str().strip_prefix("ce-") else { continue };
        if matches!(name, "data" | "datacontenttype") {
            return Err(bad(format!("ce-{name}: in binary mode the data is the body and Content-Type its type")));
        }
        let value = decode(value.as_bytes()).ok_or_else(|| bad(format!("ce-{name} is not percent-encoded UTF-8")))?;
        if attributes.insert(name.to_owned(), value).is_some() {
            return Err(bad(format!("ce-{name} is given more than once")));
        }
    }
    Ok(attributes)
}

/// Structured mode: a JSON object with the attributes and the data. What is JSON in it is kept as it was written.
fn structured(body: &[u8]) -> Result<CloudEvent, Problem> {
    let mut object: BTreeMap<String, Box<RawValue>> =
        serde_json::from_slice(body).map_err(|e| bad(format!("the body is not a JSON object: {e}")))?;
    object.retain(|_, value| value.get() != "null");
    let (data, encoded) = (object.remove("data"), object.remove("data_base64"));
    let mut attributes = BTreeMap::new();
    for (name, value) in object {
        let text = match serde_json::from_str(value.get()) {
            Ok(Value::String(text)) => text,
            Ok(Value::Bool(_) | Value::Number(_)) => value.get().to_owned(),
            _ => return Err(bad(format!("{name} must be text, a number, true or false"))),
        };
        attributes.insert(name, text);
    }
    let content_type = attributes.remove("datacontenttype");
    let body = match (data, encoded) {
        (Some(_), Some(_)) => return Err(bad("data and data_base64 cannot both be there")),
        (None, None) => Bytes::new(),
        (Some(data), None) => plain(&data, content_type.as_deref())?,
        (None, Some(encoded)) => {
            let text: Option<String> = serde_json::from_str(encoded.get()).ok();
            text.and_then(|text| BASE64.decode(text).ok()).ok_or_else(|| bad("data_base64 is not base64"))?.into()
        }
    };
    let is_json = content_type.is_none() && !body.is_empty();
    event(attributes, content_type.or_else(|| is_json.then(|| "application/json".to_owned())), body)
}

/// JSON stays JSON; data of another type is a text in the event's JSON.
fn plain(data: &RawValue, content_type: Option<&str>) -> Result<Bytes, Problem> {
    let media_type = content_type.unwrap_or("application/json").split(';').next().unwrap_or_default().trim();
    if media_type.ends_with("/json") || media_type.ends_with("+json") {
        return Ok(data.get().to_owned().into());
    }
    let text: Result<String, _> = serde_json::from_str(data.get());
    text.map(Bytes::from).map_err(|_| bad(format!("data of the type {media_type} must be a text, or in data_base64")))
}

/// What both modes have in common: the rules for attributes, the key, the headers.
fn event(
    attributes: BTreeMap<String, String>,
    content_type: Option<String>,
    body: Bytes,
) -> Result<CloudEvent, Problem> {
    for name in REQUIRED {
        if attributes.get(name).is_none_or(String::is_empty) {
            return Err(bad(format!("{name} is missing or empty")));
        }
    }
    if attributes["specversion"] != "1.0" {
        return Err(bad("specversion must be 1.0"));
    }
    for (name, value) in &attributes {
        let letters = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        if name.is_empty() || name.len() > LONGEST_NAME || !name.chars().all(letters) {
            return Err(bad(format!(
                "attributes have 1 to {LONGEST_NAME} lower-case letters and digits, not {name:?}"
            )));
        }
        if value.chars().any(char::is_control) {
            return Err(bad(format!("{name} holds a control character")));
        }
    }
    let time = attributes.get("time").map(|time| serde_json::from_value::<Timestamp>(Value::from(time.as_str())));
    if time.is_some_and(|time| time.is_err()) {
        return Err(bad("time must be as in RFC 3339"));
    }
    if content_type.as_ref().is_some_and(|text| !text.chars().all(|c| (' '..='~').contains(&c))) {
        return Err(bad("datacontenttype must be visible ASCII"));
    }
    let key = key(&attributes["source"], &attributes["id"]);
    let headers = attributes.into_iter().map(|(name, value)| (format!("ce-{name}"), value)).collect();
    Ok(CloudEvent { key, headers, content_type, body })
}

/// Source and id may be long and hold anything; a key may not. The length before each keeps `a` + `bc` from being
/// `ab` + `c`.
fn key(source: &str, id: &str) -> String {
    let mut hash = Sha256::new();
    for part in [source, id] {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    format!("cloudevent:{}", hex::encode(hash.finalize()))
}

/// Percent-decoded UTF-8; a `%` that begins no escape is refused.
fn decode(value: &[u8]) -> Option<String> {
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value;
    while let [first, tail @ ..] = rest {
        rest = tail;
        if *first == b'%' {
            bytes.extend(hex::decode(tail.get(..2)?).ok()?);
            rest = &tail[2..];
        } else {
            bytes.push(*first);
        }
    }
    String::from_utf8(bytes).ok()
}

fn bad(what: impl AsRef<str>) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, format!("not a CloudEvent 1.0: {}", what.as_ref()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_equal_only_for_the_same_source_and_id() {
        assert_eq!(key("/a", "1"), key("/a", "1"));
        assert_ne!(key("/a", "bc"), key("/ab", "c"));
        assert_ne!(key("a", "b"), key("b", "a"));
        let long = key(&"ü\u{0}".repeat(10_000), "");
        assert!(long.len() <= 255 && long.bytes().all(|byte| byte.is_ascii_graphic()), "{long}");
    }

    #[test]
    fn headers_are_decoded() {
        assert_eq!(decode(b"Euro%20%E2%82%AC%20%F0%9F%98%80").as_deref(), Some("Euro € 😀"));
        assert_eq!((decode(b"100%"), decode(b"%zz"), decode(b"%FF")), (None, None, None));
    }
}
