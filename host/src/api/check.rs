//! `POST /v1/functions/{name}/check`: one message, run twice and rolled back.

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{Api, Part, Problem, messages, steering};
use crate::check::{differences, twice};
use crate::message::{Message, message_id};

/// What is to be run: a message that was accepted, or a body.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Asked {
    message: Option<String>,
    body: Option<String>,
}

pub(super) async fn check(
    State(api): State<Api>,
    Part(name): Part,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Value>, Problem> {
    let asked: Asked = steering::read(body)?;
    let function = api.catalog.find(&name).await?;
    let function =
        function.ok_or_else(|| Problem::new(StatusCode::NOT_FOUND, format!("no function \"{name}\" is deployed")))?;
    let message = match (asked.message, asked.body) {
        (Some(id), None) => {
            let message = api.store.original(&id).await?.ok_or_else(|| messages::unknown(&id))?;
            if message.function != name {
                let what = format!("the message is one of \"{}\"", message.function);
                return Err(Problem::new(StatusCode::CONFLICT, what).about(&id));
            }
            message
        }
        (None, Some(body)) => made(&api, &name, body).await?,
        _ => return Err(Problem::new(StatusCode::BAD_REQUEST, "give either `message`, an id, or `body`, a text")),
    };
    let runs = twice(api.catalog.engine(), &api.store, &function, &message).await?;
    let differences = differences(&runs);
    Ok(Json(json!({
        "function": name,
        "version": function.version,
        "message": message.id,
        "same": differences.is_empty(),
        "differences": differences,
        "calls": runs[0].calls,
        "runs": runs,
    })))
}

/// A message that nobody sent.
async fn made(api: &Api, function: &str, body: String) -> Result<Message, Problem> {
    let event = Uuid::now_v7().simple().to_string();
    Ok(Message {
        id: message_id(&event, function),
        event,
        function: function.to_owned(),
        topic: format!("fn/{function}"),
        group: None,
        content_type: None,
        headers: Vec::new(),
        accepted_at: api.store.now().await?,
        body: body.into_bytes(),
    })
}
