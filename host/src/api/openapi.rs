//! `/openapi.json`: what can be asked of this host, the routes of deployed functions included.

use std::sync::LazyLock;

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};

use super::Api;
use crate::manifest::Manifest;

/// Written by hand; a test compares it with the routes.
static DOCUMENT: LazyLock<Value> =
    LazyLock::new(|| serde_json::from_str(include_str!("openapi.json")).unwrap_or_default());

pub(super) async fn show(State(api): State<Api>) -> Json<Value> {
    let mut document = DOCUMENT.clone();
    for function in api.catalog.all() {
        add_routes(&mut document, function.manifest());
    }
    Json(document)
}

/// A route of a manifest answers as `/fn/{name}` does.
fn add_routes(document: &mut Value, manifest: &Manifest) {
    for (number, route) in manifest.trigger.http.iter().enumerate() {
        let path = route.path.replace("{*", "{");
        for method in route.methods.iter().map(|method| method.to_lowercase()) {
            let mut operation = document["paths"]["/fn/{name}"]["post"].clone();
            let parameters = operation["parameters"].as_array_mut().into_iter().flatten().map(Value::take);
            let shared = parameters.filter(|parameter| parameter["in"] != "path");
            let own = names(&path).map(|name| {
                json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string", "minLength": 1 } })
            });
            operation["parameters"] = own.chain(shared).collect();
            operation["operationId"] = json!(format!("{}-{number}-{method}", manifest.name));
            operation["summary"] = json!(format!("A message for {}", manifest.name));
            operation["tags"] = json!(["functions"]);
            if method != "post" && method != "put" && method != "patch" {
                operation.as_object_mut().map(|operation| operation.remove("requestBody"));
            }
            document["paths"][&path][&method] = operation;
        }
    }
}

/// What stands between braces in a path.
fn names(path: &str) -> impl Iterator<Item = &str> {
    path.split('{').skip(1).filter_map(|rest| rest.split_once('}')).map(|(name, _)| name)
}
