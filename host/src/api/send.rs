//! Accepting a message: check, enqueue, and answer only after the commit.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;
use tokio::time::Instant;

use super::asked::{Asked, fingerprint, producer_headers, text_header};
use super::{Api, Part, Problem, announced, bulk, cloud_events};
use crate::crash::{self, Point};
use crate::engine::catalog::{Function, Routed};
use crate::manifest::{KeyPolicy, Manifest};
use crate::message::{Event, Header, State as MessageState, message_id};
use crate::settled::Waiting;
use crate::store::{self, Accept, Enqueued, Key, MessageRecord, Remember, Target};
use crate::watch::Accepting;

/// What stands behind the function's name where many messages are sent.
const BULK: &str = ":batch";
/// Between two looks when nobody says that the message was settled (another host may have run it): a quarter of the time
/// that was waited already, within these bounds.
const LOOK_AGAIN: [Duration; 2] = [Duration::from_millis(50), Duration::from_secs(1)];

/// `POST /fn/{name}`, and `POST /fn/{name}:batch`: the router knows no suffixes, and no name has a colon.
pub(super) async fn to_function(
    State(api): State<Api>,
    Part(name): Part,
    request: Request,
) -> Result<Response, Problem> {
    if request.method() != Method::POST {
        return Err(Problem::other_method(&["POST".to_owned()]));
    }
    if let Some(name) = name.strip_suffix(BULK) {
        return bulk::accept(api, name, request).await;
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
    let function = find(api, name).await?;
    let (parts, body) = request.into_parts();
    let asked = Asked::read(&parts.headers)?;
    let wait = asked.wait;
    let body = read_body(api, &parts.headers, body).await?;
    let path = parts.uri.path_and_query().map_or("", |path| path.as_str());
    let Ready { accept, span } =
        prepare(api, &function, asked, Sent { path, headers: &parts.headers, host_headers, body })?;
    // Before it can come to its end.
    let waiting = wait.map(|_| api.settled.watch(&message_id(&accept.event.id, &function.manifest().name)));
    let answer = api.ingest.accept(vec![accept]).await.pop();
    drop(span);
    let Taken { id, duplicate, ended_as } = taken(api, name, answer)?;
    if let Some(state) = ended_as {
        return Ok(accepted(&id, state, true)); // Its answer is no longer kept.
    }
    match wait {
        Some(wait) => answered(api, waiting.filter(|_| !duplicate), &id, wait).await,
        None if duplicate => {
            let record = api.store.message(&id).await?;
            Ok(accepted(&id, record.map_or(MessageState::Available, |record| record.state), true))
        }
        None => Ok(accepted(&id, MessageState::Available, false)),
    }
}

/// The function to which something is sent.
pub(super) async fn find(api: &Api, name: &str) -> Result<Arc<Function>, Problem> {
    api.catalog.find(name).await?.ok_or_else(|| unknown(name))
}

fn unknown(name: &str) -> Problem {
    Problem::new(StatusCode::NOT_FOUND, format!("no function \"{name}\" is deployed"))
}

/// A message as it was sent.
pub(super) struct Sent<'a> {
    /// Path and query.
    pub(super) path: &'a str,
    pub(super) headers: &'a HeaderMap,
    /// Headers that the host makes of the path and the query.
    pub(super) host_headers: Vec<Header>,
    pub(super) body: Bytes,
}

/// A message that can be enqueued.
pub(super) struct Ready {
    pub(super) accept: Accept,
    /// Ends when it is dropped, which is when the answer is known.
    pub(super) span: Option<Accepting>,
}

/// Makes an event of what was sent.
pub(super) fn prepare(api: &Api, function: &Function, mut asked: Asked, sent: Sent<'_>) -> Result<Ready, Problem> {
    let (manifest, mut body) = (function.manifest(), sent.body);
    let mut content_type = text_header(sent.headers, header::CONTENT_TYPE.as_str())?;
    let mut headers = producer_headers(sent.headers);
    headers.extend(sent.host_headers);
    if let Some(event) = cloud_events::read(sent.headers, &body)? {
        asked.key = asked.key.or(Some(event.key));
        headers.retain(|(name, _)| !name.starts_with("ce-"));
        headers.extend(event.headers);
        (content_type, body) = (event.content_type, event.body);
    }
    let span = api.watch.accepting(&manifest.name, &mut headers);
    let key = asked.key.map(|key| Key {
        key,
        fingerprint: fingerprint(content_type.as_deref(), sent.path, &body),
        remember: remember(manifest),
    });
    let event = Event {
        id: uuid::Uuid::now_v7().simple().to_string(),
        topic: format!("fn/{}", manifest.name),
        group: asked.group,
        content_type,
        headers,
        body: body.into(),
        priority: asked.priority,
        delay: asked.delay,
    };
    crash::point(Point::AcceptRead);
    Ok(Ready { accept: Accept { event, target: Target::Function(manifest.name.clone()), key }, span })
}

/// A message that is in the database, from now or before.
pub(super) struct Taken {
    pub(super) id: String,
    pub(super) duplicate: bool,
    /// How it ended, if it is no longer kept.
    ended_as: Option<MessageState>,
}

/// What its sender is told, who is told now.
pub(super) fn taken(api: &Api, name: &str, answer: Option<Result<Enqueued, store::Error>>) -> Result<Taken, Problem> {
    let missing = || Problem::unavailable("nobody knows what became of the message; try again");
    let taken = match answer.ok_or_else(missing)?? {
        Enqueued::Accepted(ids) => {
            Taken { id: ids.into_iter().next().unwrap_or_default(), duplicate: false, ended_as: None }
        }
        Enqueued::Duplicate { id, ended_as } => Taken { id, duplicate: true, ended_as },
        Enqueued::BacklogFull => {
            api.watch.metrics.backlog_refused();
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
        Enqueued::NoTarget => return Err(unknown(name)),
    };
    crash::point(Point::AcceptAnswering);
    api.watch.metrics.accepted(name, taken.duplicate);
    Ok(taken)
}

/// How long the function's keys are remembered.
fn remember(manifest: &Manifest) -> Remember {
    match manifest.idempotency.policy {
        KeyPolicy::Window => Remember::For(manifest.idempotency.window.0),
        KeyPolicy::WhileActive => Remember::WhileActive,
        KeyPolicy::Forever => Remember::Forever,
    }
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

fn accepted(id: &str, state: MessageState, duplicate: bool) -> Response {
    let location = format!("/v1/messages/{id}");
    let document = json!({ "id": id, "state": state, "duplicate": duplicate });
    (StatusCode::ACCEPTED, [(header::LOCATION, location)], Json(document)).into_response()
}

/// Waits for the end of a message and answers with it; a 202 if it takes longer. A new one is waited for since before it was
/// accepted; one that was there already is asked about first.
async fn answered(api: &Api, new: Option<Waiting>, id: &str, wait: Duration) -> Result<Response, Problem> {
    let began = Instant::now();
    let until = began + wait;
    let (duplicate, mut ask) = (new.is_none(), new.is_none());
    let waiting = new.unwrap_or_else(|| api.settled.watch(id));
    let mut stopping = api.stopping.clone();
    loop {
        if let Some(its) = waiting.answer() {
            return Ok(answer(id, its.clone(), duplicate));
        }
        if ask {
            let record = api.store.message(id).await?;
            let record = record.ok_or_else(|| Problem::new(StatusCode::NOT_FOUND, "the message is gone").about(id))?;
            if record.state.is_final() {
                return ended(record, duplicate);
            }
            if Instant::now() >= until || *stopping.borrow() {
                return Ok(accepted(id, record.state, duplicate));
            }
        }
        ask = true;
        let [shortest, longest] = LOOK_AGAIN;
        let look_again = until.min(Instant::now() + (began.elapsed() / 4).clamp(shortest, longest));
        tokio::select! {
            () = waiting.woken() => {}
            () = tokio::time::sleep_until(look_again) => {} // Woken or not, the store is asked, unless the answer came along.
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
}
