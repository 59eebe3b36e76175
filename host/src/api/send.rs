//! Accepting a message: check, enqueue, and answer only after the commit.

use std::time::Duration;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use super::{Api, Part, Problem, announced, cloud_events};
use crate::crash::{self, Point};
use crate::engine::catalog::Routed;
use crate::manifest::{KeyPolicy, Manifest, parse_span};
use crate::message::{Event, Header, State as MessageState};
use crate::store::{Enqueued, Key, MessageRecord, Remember, Target};

/// Longest time that a request may wait for its answer.
const LONGEST_WAIT: u64 = 60;
/// Between two looks when nobody says that the message was settled (another host may have run it): a quarter of the time
/// that was waited already, within these bounds.
const LOOK_AGAIN: [Duration; 2] = [Duration::from_millis(50), Duration::from_secs(1)];
/// Longest group key, in bytes.
const LONGEST_GROUP: usize = 255;

/// `POST /fn/{name}`
pub(super) async fn to_function(
    State(api): State<Api>,
    Part(name): Part,
    request: Request,
) -> Result<Response, Problem> {
    if request.method() != Method::POST {
        return Err(Problem::other_method(&["POST".to_owned()]));
    }
    accept(&api, &name, Vec::new(), request).await
}

/// Any other path: a route of a manifest, or nothing.
pub(super) async fn to_route(State(api): State<Api>, request: Request) -> Result<Response, Problem> {
    match api.catalog.find_route(request.method().as_str(), request.uri().path()).await? {
        Routed::To(name, params) => {
            let decode = |(name, value): (String, String)| (format!("semel-path-{name}"), percent_decode(&value));
            let mut headers: Vec<Header> = params.into_iter().map(decode).collect();
            headers.extend(query(request.uri()));
            accept(&api, &name, headers, request).await
        }
        Routed::OtherMethods(methods) => Err(Problem::other_method(&methods)),
        Routed::Nowhere => {
            Err(Problem::new(StatusCode::NOT_FOUND, format!("no function has a route for {}", request.uri().path())))
        }
    }
}

fn query(uri: &Uri) -> Vec<Header> {
    let pairs = uri.query().unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let decode = |text: &str| percent_decode(&text.replace('+', " "));
            (format!("semel-query-{}", decode(name)), decode(value))
        })
        .collect()
}

/// `%2F` becomes `/`; what is no valid escape stays as it is.
fn percent_decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let escaped = (*first == b'%').then(|| tail.get(..2)).flatten().and_then(|digits| hex::decode(digits).ok());
        match escaped {
            Some(byte) => {
                bytes.extend(byte);
                rest = &tail[2..];
            }
            None => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

async fn accept(api: &Api, name: &str, host_headers: Vec<Header>, request: Request) -> Result<Response, Problem> {
    let unknown = || Problem::new(StatusCode::NOT_FOUND, format!("no function \"{name}\" is deployed"));
    let function = api.catalog.find(name).await?.ok_or_else(unknown)?;
    let (parts, body) = request.into_parts();
    let mut asked = Asked::read(&parts.headers)?;
    let mut body = read_body(api, &parts.headers, body).await?;
    let mut content_type = text_header(&parts.headers, header::CONTENT_TYPE.as_str())?;
    let mut headers = producer_headers(&parts.headers);
    headers.extend(host_headers);
    if let Some(event) = cloud_events::read(&parts.headers, &body)? {
        asked.key = asked.key.or(Some(event.key));
        headers.retain(|(name, _)| !name.starts_with("ce-"));
        headers.extend(event.headers);
        (content_type, body) = (event.content_type, event.body);
    }
    let accepting = api.watch.accepting(name, &mut headers);
    let key = asked.key.map(|key| Key {
        key,
        fingerprint: fingerprint(content_type.as_deref(), &parts.uri, &body),
        remember: remember(function.manifest()),
    });
    let event = Event {
        id: uuid::Uuid::now_v7().simple().to_string(),
        topic: format!("fn/{name}"),
        group: asked.group,
        content_type,
        headers,
        body: body.into(),
        priority: asked.priority,
        delay: asked.delay,
    };
    crash::point(Point::AcceptRead);
    let (id, duplicate, ended_as) = match api.store.enqueue(event, Target::Function(name.to_owned()), key).await? {
        Enqueued::Accepted(ids) => (ids.into_iter().next().unwrap_or_default(), false, None),
        Enqueued::Duplicate { id, ended_as } => (id, true, ended_as),
        Enqueued::BacklogFull => {
            return Err(Problem::too_many(format!(
                "as many messages as {name} may have are waiting; send it again later"
            )));
        }
        Enqueued::KeyReused => {
            return Err(Problem::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "this Idempotency-Key was used for another request (content type, body, path or query differ)",
            ));
        }
        Enqueued::NoTarget => return Err(unknown()),
    };
    drop(accepting);
    crash::point(Point::AcceptAnswering);
    api.watch.metrics.accepted(name, duplicate);
    if let Some(state) = ended_as {
        return Ok(accepted(&id, state, true)); // Its answer is no longer kept.
    }
    match asked.wait {
        Some(wait) => answered(api, &id, duplicate, wait).await,
        None if duplicate => {
            let record = api.store.message(&id).await?;
            Ok(accepted(&id, record.map_or(MessageState::Available, |record| record.state), true))
        }
        None => Ok(accepted(&id, MessageState::Available, false)),
    }
}

/// How long the function's keys are remembered.
fn remember(manifest: &Manifest) -> Remember {
    match manifest.idempotency.policy {
        KeyPolicy::Window => Remember::For(manifest.idempotency.window.0),
        KeyPolicy::WhileActive => Remember::WhileActive,
        KeyPolicy::Forever => Remember::Forever,
    }
}

/// What the request's headers ask of Semel.
struct Asked {
    key: Option<String>,
    group: Option<String>,
    delay: Duration,
    priority: i32,
    wait: Option<Duration>,
}

impl Asked {
    fn read(headers: &HeaderMap) -> Result<Self, Problem> {
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

fn text_header(headers: &HeaderMap, name: &str) -> Result<Option<String>, Problem> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let bad = |why: &str| Problem::new(StatusCode::BAD_REQUEST, format!("header {name}: {why}"));
    if values.next().is_some() {
        return Err(bad("given more than once"));
    }
    value.to_str().map(|text| Some(text.to_owned())).map_err(|_| bad("must be visible ASCII"))
}

async fn read_body(api: &Api, headers: &HeaderMap, body: Body) -> Result<Bytes, Problem> {
    let most = api.limits.body;
    let too_large = || Problem::new(StatusCode::PAYLOAD_TOO_LARGE, format!("a message has at most {most} bytes"));
    if announced(headers).is_some_and(|length| length > most) {
        return Err(too_large());
    }
    match tokio::time::timeout(api.limits.patience, axum::body::to_bytes(body, most)).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(error)) if error.to_string().contains("length limit") => Err(too_large()),
        Ok(Err(_)) => Err(Problem::new(StatusCode::BAD_REQUEST, "the body broke off")),
        Err(_) => Err(Problem::new(StatusCode::REQUEST_TIMEOUT, "the body did not arrive in time")),
    }
}

/// What "the same request" means for an idempotency key.
fn fingerprint(content_type: Option<&str>, uri: &Uri, body: &[u8]) -> Vec<u8> {
    let mut hash = Sha256::new();
    let path = uri.path_and_query().map(|path| path.as_str()).unwrap_or_default();
    for part in [content_type.unwrap_or_default().as_bytes(), path.as_bytes(), body] {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hash.finalize().to_vec()
}

/// What goes along with the message: neither what belongs to the connection, nor what Semel itself reads or sets, nor
/// the sender's credentials.
fn producer_headers(headers: &HeaderMap) -> Vec<Header> {
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

fn accepted(id: &str, state: MessageState, duplicate: bool) -> Response {
    let location = format!("/v1/messages/{id}");
    let document = json!({ "id": id, "state": state, "duplicate": duplicate });
    (StatusCode::ACCEPTED, [(header::LOCATION, location)], Json(document)).into_response()
}

/// Waits for the end of a message and answers with it; a 202 if it takes longer.
async fn answered(api: &Api, id: &str, duplicate: bool, wait: Duration) -> Result<Response, Problem> {
    let began = Instant::now();
    let until = began + wait;
    let waiting = api.settled.watch(id);
    let mut stopping = api.stopping.clone();
    loop {
        let record = api.store.message(id).await?;
        let record = record.ok_or_else(|| Problem::new(StatusCode::NOT_FOUND, "the message is gone").about(id))?;
        if record.state.is_final() {
            return ended(record, duplicate);
        }
        if Instant::now() >= until || *stopping.borrow() {
            return Ok(accepted(id, record.state, duplicate));
        }
        let [shortest, longest] = LOOK_AGAIN;
        let look_again = until.min(Instant::now() + (began.elapsed() / 4).clamp(shortest, longest));
        tokio::select! {
            () = waiting.woken() => {}
            () = tokio::time::sleep_until(look_again) => {} // Woken or not, the store is asked.
            _ = stopping.changed() => {}
        }
    }
}

fn ended(record: MessageRecord, duplicate: bool) -> Result<Response, Problem> {
    let (kind, reason) = record.last_error.unwrap_or_default();
    // What the database or the host itself says is for those who may read traces, not for everybody who may send.
    let inside = ["doomed", "host-failed", "sql-forbidden"].contains(&kind.as_str());
    let reason = if inside { format!("`semel trace {}` says why", record.id) } else { reason };
    let problem = |status| Err(Problem::new(status, format!("{kind}: {reason}")).about(&record.id));
    match record.state {
        MessageState::Dead if kind == "refused" => problem(StatusCode::UNPROCESSABLE_ENTITY),
        MessageState::InDoubt => problem(StatusCode::GATEWAY_TIMEOUT),
        MessageState::Completed => Ok(answer(&record.id, record.answer.unwrap_or_default(), duplicate)),
        _ => problem(StatusCode::BAD_GATEWAY),
    }
}

/// The function's own answer: its content type, its headers (but none that frame the message), its body.
fn answer(id: &str, answer: crate::message::Answer, duplicate: bool) -> Response {
    let mut headers = HeaderMap::new();
    for (name, value) in answer.headers {
        let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) else { continue };
        let framing = ["connection", "content-length", "transfer-encoding", "upgrade"].contains(&name.as_str());
        if !framing && !name.as_str().starts_with("semel-") {
            let _ = headers.try_append(name, value); // Refused beyond what a header map holds.
        }
    }
    if let Some(value) = answer.content_type.and_then(|value| HeaderValue::try_from(value).ok()) {
        headers.insert(header::CONTENT_TYPE, value);
    }
    if let Ok(id) = HeaderValue::try_from(id) {
        headers.insert("semel-message-id", id);
    }
    if duplicate {
        headers.insert("idempotent-replayed", HeaderValue::from_static("true"));
    }
    headers.insert("preference-applied", HeaderValue::from_static("wait"));
    (StatusCode::OK, headers, answer.body).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decodes_percent_escapes_and_leaves_the_rest() {
        assert_eq!(percent_decode("a%2Fb%20c"), "a/b c");
        assert_eq!(percent_decode("100%"), "100%");
        assert_eq!(percent_decode("%zz%4"), "%zz%4");
    }

    #[test]
    fn a_fingerprint_tells_apart_what_is_not_the_same() {
        let uri = |text: &str| text.parse::<Uri>().expect("a URI");
        let one = fingerprint(Some("a"), &uri("/fn/x"), b"body");
        assert_eq!(one, fingerprint(Some("a"), &uri("/fn/x"), b"body"));
        assert_ne!(one, fingerprint(Some("b"), &uri("/fn/x"), b"body"));
        assert_ne!(one, fingerprint(Some("a"), &uri("/fn/x?y"), b"body"));
        assert_ne!(one, fingerprint(Some("a"), &uri("/fn/x"), b"other"));
        assert_ne!(fingerprint(Some("ab"), &uri("/"), b""), fingerprint(Some("a"), &uri("/"), b"b"));
    }
}
