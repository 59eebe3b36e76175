//! `/v1/functions`: deploy and list.

use axum::Json;
use axum::extract::multipart::{Field, MultipartError};
use axum::extract::{DefaultBodyLimit, FromRequest, Multipart, Query, Request, State};
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Api, Part, Problem, announced, document, schedules, steering};
use crate::engine::catalog::Upload;
use crate::message::Contract;

pub(super) async fn list(State(api): State<Api>) -> Result<Json<Value>, Problem> {
    let functions = api.catalog.all();
    let mut documents: Vec<Value> = functions.iter().map(|function| document::function(function)).collect();
    schedules::stand(&api, &functions, &mut documents).await?;
    Ok(Json(json!({ "functions": documents })))
}

pub(super) async fn show(State(api): State<Api>, Part(name): Part) -> Result<Json<Value>, Problem> {
    let function = api.catalog.find(&name).await?;
    let function =
        function.ok_or_else(|| Problem::new(StatusCode::NOT_FOUND, format!("no function \"{name}\" is deployed")))?;
    let mut document = document::function(&function);
    let versions = api.store.versions(&name).await?;
    schedules::stand(&api, std::slice::from_ref(&function), std::slice::from_mut(&mut document)).await?;
    document["versions"] = versions.iter().map(|version| document::version(version, function.version)).collect();
    Ok(Json(document))
}

/// What the query of a deploy may say.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Options {
    contract: Option<Contract>,
    accept_weaker_guarantee: bool,
}

/// `PUT /v1/functions/{name}`: the parts `manifest`, `component` and `migration` (with file names).
pub(super) async fn deploy(
    State(api): State<Api>,
    Part(name): Part,
    options: Result<Query<Options>, axum::extract::rejection::QueryRejection>,
    mut request: Request,
) -> Result<Json<Value>, Problem> {
    let Query(options) = options.map_err(|e| Problem::new(StatusCode::BAD_REQUEST, e.body_text()))?;
    if announced(request.headers()).is_some_and(|length| length > api.limits.upload) {
        let what = format!("a deployment has at most {} bytes", api.limits.upload);
        return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, what));
    }
    DefaultBodyLimit::apply(DefaultBodyLimit::max(api.limits.upload), &mut request);
    let multipart = Multipart::from_request(request, &api).await;
    let multipart = multipart
        .map_err(|e| Problem::new(StatusCode::BAD_REQUEST, format!("send multipart/form-data: {}", e.body_text())))?;
    let slow = |_| Problem::new(StatusCode::REQUEST_TIMEOUT, "the upload did not arrive in time");
    let mut upload = tokio::time::timeout(api.limits.request / 2, read(multipart)).await.map_err(slow)??;
    upload.name = Some(name);
    upload.contract = options.contract;
    upload.accept_weaker = options.accept_weaker_guarantee;
    let deploy = steering::to_its_end(async move { api.catalog.deploy(upload).await });
    Ok(Json(document::steered(&deploy.await?)))
}

async fn read(mut multipart: Multipart) -> Result<Upload, Problem> {
    let mut upload = Upload::default();
    let (mut manifest, mut component) = (None, None);
    while let Some(field) = multipart.next_field().await.map_err(|e| broken(&e))? {
        match field.name().unwrap_or_default() {
            "manifest" => manifest = Some(text(field, "manifest").await?),
            "component" => component = Some(field.bytes().await.map_err(|e| broken(&e))?.to_vec()),
            "migration" => {
                let name = field.file_name().unwrap_or_default().to_owned();
                if name.is_empty() {
                    return Err(Problem::new(StatusCode::BAD_REQUEST, "each part `migration` needs a file name"));
                }
                upload.migrations.push((name, text(field, "migration").await?));
            }
            other => {
                let what = format!("unknown part `{other}`; there are manifest, component and migration");
                return Err(Problem::new(StatusCode::BAD_REQUEST, what));
            }
        }
    }
    let missing = |part: &str| Problem::new(StatusCode::BAD_REQUEST, format!("the part `{part}` is missing"));
    upload.manifest = manifest.ok_or_else(|| missing("manifest"))?;
    upload.component = component.ok_or_else(|| missing("component"))?;
    upload.migrations.sort();
    Ok(upload)
}

async fn text(field: Field<'_>, part: &str) -> Result<String, Problem> {
    let bytes = field.bytes().await.map_err(|e| broken(&e))?;
    String::from_utf8(bytes.into())
        .map_err(|_| Problem::new(StatusCode::BAD_REQUEST, format!("the part `{part}` is not UTF-8 text")))
}

fn broken(error: &MultipartError) -> Problem {
    // What broke off on the way is no fault of the host.
    let status = if error.status().is_server_error() { StatusCode::BAD_REQUEST } else { error.status() };
    Problem::new(status, format!("the upload cannot be read: {}", error.body_text()))
}
