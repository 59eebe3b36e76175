//! Webhooks: a POST for each event, signed as [Standard Webhooks](https://www.standardwebhooks.com) say, with the event as
//! CloudEvents 1.0 write it.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, bail};
use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::future::join_all;
use hmac::{Hmac, KeyInit, Mac};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::Sha256;

use super::{Outgoing, PATIENCE, Sent, Sink};
use crate::manifest::Span;
use crate::outside::{Called, Client, Grants, Limits, NotSent, Request, Target};

/// Bytes of a request's body: the largest event, in base64.
const LARGEST: usize = 64 << 20;
/// Bytes of an answer that are read; nobody looks at them.
const ANSWER: usize = 64 << 10;
/// What a secret begins with.
const SECRET: &str = "whsec_";
/// Bytes of a key.
const KEY: std::ops::RangeInclusive<usize> = 24..=64;

/// `[sinks.NAME]` with `kind = "webhook"`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WebhookSettings {
    /// Topics whose events are sent there.
    pub topics: Vec<String>,
    /// Where they are sent.
    pub url: String,
    /// A file with the secret that signs them, `whsec_` and base64; several, a line each, while they change. None signs nothing.
    pub secret_file: Option<PathBuf>,
    /// How the event is written.
    #[serde(default)]
    pub format: Format,
    /// Time for one try; 10s, at most 15s.
    pub timeout: Option<Span>,
}

/// How an event is written into a request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// `application/cloudevents+json`: event and data are one document.
    #[default]
    Structured,
    /// The body is the event's own, and `ce-` headers say the rest.
    Binary,
}

/// A server that takes webhooks.
pub struct Webhook {
    client: Client,
    target: Target,
    grants: Grants,
    keys: Vec<Vec<u8>>,
    format: Format,
    timeout: Duration,
}

impl Webhook {
    /// # Errors
    /// If the URL or a secret is none.
    pub fn new(settings: &WebhookSettings) -> anyhow::Result<Self> {
        let target = Target::parse(&settings.url).map_err(|why| anyhow::anyhow!("url: {why}"))?;
        let timeout = settings.timeout.map_or(Duration::from_secs(10), |span| span.0);
        if timeout.is_zero() || timeout > PATIENCE {
            bail!("timeout must be more than nothing, and at most {PATIENCE:?}");
        }
        Ok(Self {
            client: Client::new(Limits { request: LARGEST, ..Limits::default() }),
            grants: Grants::trusting(target.origin.clone()),
            target,
            keys: settings.secret_file.as_deref().map(keys).transpose()?.unwrap_or_default(),
            format: settings.format,
            timeout,
        })
    }

    async fn deliver(&self, event: &Outgoing) -> Sent {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let (mut headers, body) = match self.format {
            Format::Structured => structured(event),
            Format::Binary => binary(event),
        };
        headers.insert("webhook-id", value(&event.id));
        headers.insert("webhook-timestamp", HeaderValue::from(now));
        if !self.keys.is_empty() {
            headers.insert("webhook-signature", value(&signature(&self.keys, &event.id, now, &body)));
        }
        let request = Request {
            method: Method::POST,
            target: self.target.clone(),
            headers,
            body: body.into(),
            key: Some(event.id.clone()),
            connect: None,
            first_byte: None,
            answer: ANSWER,
        };
        sent(self.client.call(request, &self.grants, Instant::now() + self.timeout).await)
    }
}

#[async_trait]
impl Sink for Webhook {
    async fn send(&self, events: &[Outgoing]) -> Vec<Sent> {
        join_all(events.iter().map(|event| self.deliver(event))).await
    }

    fn room(&self) -> (usize, usize) {
        (1, 32)
    }

    fn guarantee(&self) -> &'static str {
        "at least once; the receiver tells duplicates by webhook-id"
    }
}

fn keys(file: &Path) -> anyhow::Result<Vec<Vec<u8>>> {
    let text =
        std::fs::read_to_string(file).with_context(|| format!("cannot read the secret in {}", file.display()))?;
    let read = |line: &str| STANDARD.decode(line.strip_prefix(SECRET)?).ok().filter(|key| KEY.contains(&key.len()));
    let keys: Option<Vec<_>> = text.lines().map(str::trim).filter(|line| !line.is_empty()).map(read).collect();
    keys.filter(|keys| !keys.is_empty()).with_context(|| {
        let (least, most) = KEY.into_inner();
        format!("{}: a secret is {SECRET} and {least} to {most} bytes in base64, one in each line", file.display())
    })
}

/// One for each key, as the receiver may know the old one or the new.
fn signature(keys: &[Vec<u8>], id: &str, now: u64, body: &[u8]) -> String {
    let sign = |key: &Vec<u8>| {
        let mut mac = <Hmac<Sha256> as KeyInit>::new_from_slice(key).expect("a key of any length");
        mac.update(format!("{id}.{now}.").as_bytes());
        mac.update(body);
        format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
    };
    keys.iter().map(sign).collect::<Vec<_>>().join(" ")
}

/// What cannot stand in a header is left out of it.
fn value(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or_else(|_| HeaderValue::from_static(""))
}

/// The publisher's own headers.
fn own(event: &Outgoing) -> HeaderMap {
    let read = |(name, text): &(String, String)| Some((name.parse::<HeaderName>().ok()?, text.parse().ok()?));
    let mut headers = HeaderMap::new();
    for (name, value) in event.headers.iter().filter_map(read) {
        let name: HeaderName = name;
        if !["ce-", "webhook-", "content-"].iter().any(|reserved| name.as_str().starts_with(reserved)) {
            headers.append(name, value);
        }
    }
    headers
}

fn structured(event: &Outgoing) -> (HeaderMap, Vec<u8>) {
    let kind = event.content_type.as_deref().unwrap_or_default();
    let mut document = json!({
        "specversion": "1.0",
        "id": event.id,
        "source": SOURCE,
        "type": event.topic,
        "time": event.time,
    });
    let mut set = |name: &str, value: Value| document[name] = value;
    if let Some(kind) = &event.content_type {
        set("datacontenttype", json!(kind));
    }
    if let Some(group) = &event.group {
        set("partitionkey", json!(group));
    }
    let media = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let is_json = media == "application/json" || media.ends_with("+json");
    match (is_json.then(|| serde_json::from_slice(&event.body).ok()).flatten(), std::str::from_utf8(&event.body)) {
        (Some(data), _) => set("data", data),
        (None, Ok(text)) if media.starts_with("text/") => set("data", json!(text)),
        _ if event.body.is_empty() => {}
        _ => set("data_base64", json!(STANDARD.encode(&event.body))),
    }
    let mut headers = own(event);
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/cloudevents+json"));
    (headers, document.to_string().into_bytes())
}

fn binary(event: &Outgoing) -> (HeaderMap, Vec<u8>) {
    let mut headers = own(event);
    if let Some(kind) = &event.content_type {
        headers.insert(header::CONTENT_TYPE, value(kind));
    }
    headers.insert("ce-specversion", HeaderValue::from_static("1.0"));
    let attributes = [
        ("ce-id", Some(event.id.clone())),
        ("ce-source", Some(SOURCE.to_owned())),
        ("ce-type", Some(event.topic.clone())),
        ("ce-time", Some(event.time.to_string())),
        ("ce-partitionkey", event.group.clone()),
    ];
    for (name, text) in attributes {
        if let Some(text) = text {
            headers.insert(name, value(&percent_encode(&text)));
        }
    }
    (headers, event.body.clone())
}

/// As the HTTP binding of CloudEvents wants it: what is not printable ASCII, and `"`, `%` and the space.
fn percent_encode(text: &str) -> String {
    const SET: percent_encoding::AsciiSet = percent_encoding::CONTROLS.add(b' ').add(b'"').add(b'%');
    percent_encoding::utf8_percent_encode(text, &SET).to_string()
}

/// Who sends, for CloudEvents: the ids are unique under it.
const SOURCE: &str = "semel";

/// What the end of a try means: a body that the server does not take, it never will; everything else may pass.
fn sent(called: Called) -> Sent {
    let again = |reason: String, after| Sent::Again { reason, after };
    let answer = match called {
        Called::Answered(answer) => answer,
        Called::NotSent(why @ NotSent::Invalid(_)) => return Sent::Never(why.to_string()),
        Called::NotSent(why) => return Sent::Closed(why.to_string()),
        Called::Unknown(why) => return again(why.to_string(), None),
    };
    let said = format!("the server answered {}", answer.status);
    match answer.status {
        status if status.is_success() => Sent::Taken,
        StatusCode::BAD_REQUEST
        | StatusCode::PAYLOAD_TOO_LARGE
        | StatusCode::UNSUPPORTED_MEDIA_TYPE
        | StatusCode::UNPROCESSABLE_ENTITY => Sent::Never(said),
        StatusCode::GONE => Sent::Never(format!("{said}: nobody listens there any more")),
        status if status.is_redirection() => again(format!("{said}: give the sink the URL that this leads to"), None),
        _ => {
            let after = answer.headers.get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
            again(said, after.map(Duration::from_secs))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the specification.
    #[test]
    fn signs_as_the_specification_does() {
        let key = STANDARD.decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").expect("base64");
        assert_eq!(
            signature(&[key], "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, br#"{"test": 2432232314}"#),
            "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
        );
    }

    #[test]
    fn what_may_pass_is_tried_again_and_a_body_that_is_not_taken_is_not() {
        let answered = |status: u16| {
            let status = StatusCode::from_u16(status).expect("a status");
            sent(Called::Answered(crate::outside::Answer {
                status,
                headers: HeaderMap::new(),
                body: Ok(bytes::Bytes::new()),
            }))
        };
        for status in [200, 201, 202, 204] {
            assert_eq!(answered(status), Sent::Taken);
        }
        for status in [400, 410, 413, 415, 422] {
            assert!(matches!(answered(status), Sent::Never(_)), "{status}");
        }
        for status in [301, 307, 401, 403, 404, 409, 429, 500, 503] {
            assert!(matches!(answered(status), Sent::Again { .. }), "{status}");
        }
    }
}
