//! The documents that people and scripts read. Field names are a contract.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Serialize;
use serde_json::{Value, json};

use crate::clock::Timestamp;
use crate::engine::catalog::{Catalog, Function, Steered};
use crate::engine::label::guarantees;
use crate::manifest::{Cron, Manifest};
use crate::message::{Answer, Contract, State};
use crate::store::{MessageRecord, VersionRecord};

/// A message and where it stands.
#[derive(Debug, Serialize)]
pub(super) struct MessageDocument {
    id: String,
    function: String,
    version: Option<i64>,
    contract: Option<Contract>,
    label: Option<String>,
    state: State,
    attempt: u32,
    max_attempts: Option<u32>,
    group: Option<String>,
    priority: i32,
    created_at: Timestamp,
    available_at: Timestamp,
    completed_at: Option<Timestamp>,
    lease_until: Option<Timestamp>,
    last_error: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response: Option<Value>,
}

impl MessageDocument {
    pub(super) fn new(record: MessageRecord, catalog: &Catalog) -> Self {
        let function = catalog.get(&record.function);
        Self {
            contract: record.contract,
            label: record.label,
            max_attempts: function.map(|function| record.attempts_before + function.manifest().max_attempts()),
            id: record.id,
            function: record.function,
            version: record.version,
            state: record.state,
            attempt: record.attempt,
            group: record.group,
            priority: record.priority,
            created_at: record.created_at,
            available_at: record.available_at,
            completed_at: record.completed_at,
            lease_until: record.lease_until,
            last_error: record.last_error.map(|(kind, message)| json!({ "kind": kind, "message": message })),
            response: record.answer.map(response),
        }
    }
}

/// Text as text, anything else as base64.
fn response(answer: Answer) -> Value {
    let mut document = json!({ "content_type": answer.content_type, "headers": answer.headers });
    match String::from_utf8(answer.body) {
        Ok(text) => document["body"] = json!(text),
        Err(bytes) => document["body_base64"] = json!(BASE64.encode(bytes.as_bytes())),
    }
    document
}

/// A deployed function.
pub(super) fn function(function: &Function) -> Value {
    let manifest = function.manifest();
    json!({
        "name": manifest.name,
        "version": function.version,
        "digest": function.digest,
        "app": manifest.app,
        "contract": manifest.contract,
        "label": function.class(),
        "paused": function.is_paused(),
        "imports": function.imports(),
        "guarantees": guarantees(manifest.contract, function.class()),
        "routes": manifest.trigger.http.iter().map(|route| json!({ "path": route.path, "methods": route.methods })).collect::<Vec<_>>(),
        "topics": manifest.trigger.topics,
        "cron": manifest.trigger.cron.iter().map(schedule).collect::<Vec<_>>(),
        "limits": limits(manifest),
        "max_attempts": manifest.max_attempts(),
    })
}

fn schedule(cron: &Cron) -> Value {
    json!({
        "schedule": cron.schedule(),
        "timezone": cron.timezone(),
        "missed": cron.missed,
        "body": cron.body(),
    })
}

/// A function after a deploy or a rollback, with what the deployer should know.
pub(super) fn steered(steered: &Steered) -> Value {
    let mut document = function(&steered.function);
    document["warnings"] = json!(steered.warnings);
    document
}

/// A version in the list of a function's versions.
pub(super) fn version(version: &VersionRecord, active: i64) -> Value {
    json!({
        "version": version.version,
        "active": version.version == active,
        "digest": version.digest,
        "contract": version.contract,
        "label": version.label,
        "deployed_at": version.created_at,
    })
}

/// What one attempt may use.
pub(crate) fn limits(manifest: &Manifest) -> Value {
    json!({
        "fuel": manifest.limits.fuel,
        "timeout_ms": millis(manifest.timeout()),
        "lease_ms": millis(manifest.lease()),
        "memory_bytes": manifest.limits.memory.0,
        "statements": manifest.limits.statements,
        "rows": manifest.limits.rows,
    })
}

fn millis(span: std::time::Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}
