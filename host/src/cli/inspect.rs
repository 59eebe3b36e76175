//! `semel inspect`: what a component imports, what that makes of its effects, and its limits.

use std::path::Path;

use anyhow::Context as _;
use serde_json::{Value, json};

use super::client::Server;
use super::table;
use crate::api::document::limits;
use crate::engine::label::guarantees;
use crate::engine::{Engine, Resources};
use crate::manifest::Manifest;

/// Show imports with their classes, the label, and the guarantee table
#[derive(Debug, clap::Args)]
pub(crate) struct Inspect {
    /// A .wasm file, or the name of a deployed function
    #[arg(value_name = "FILE.wasm | NAME")]
    what: String,
    /// One JSON document
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: Server,
}

impl Inspect {
    pub(crate) async fn execute(self) -> anyhow::Result<()> {
        let path = Path::new(&self.what);
        let document = if path.exists() || path.extension().is_some() {
            inspect_file(path).await?
        } else {
            self.server.get(&["v1", "functions", &self.what], &[]).await?
        };
        if self.json {
            return table::json(&document);
        }
        print(&document);
        Ok(())
    }
}

/// Needs no host: contract and limits are those of the manifest beside the file, or else the defaults.
async fn inspect_file(path: &Path) -> anyhow::Result<Value> {
    let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let inspected = Engine::new(Resources::default())?.inspect(&bytes).await.map_err(anyhow::Error::msg);
    let label = inspected.with_context(|| format!("{} cannot be deployed", path.display()))?;
    let manifest = match std::fs::read_to_string(path.with_file_name("function.toml")) {
        Ok(text) => Manifest::parse(&text),
        Err(_) => Manifest::bare("function"),
    };
    let manifest = manifest.map_err(anyhow::Error::msg)?;
    let contract = manifest.contract;
    let label = label.under(&manifest.grants);
    Ok(json!({
        "contract": contract,
        "label": label.class,
        "limits": limits(&manifest),
        "imports": label.imports,
        "guarantees": guarantees(contract, label.class),
    }))
}

/// Imports, label, guarantee table, limits.
pub(super) fn print(document: &Value) {
    let list = |key: &str| document[key].as_array().cloned().unwrap_or_default();
    out!("contract  {}", table::cell(&document["contract"]));
    out!("label     {}", table::cell(&document["label"]));
    if let Some(limits) = document["limits"].as_object() {
        let limits: Vec<String> =
            limits.iter().filter(|(_, v)| !v.is_null()).map(|(k, v)| format!("{k} {v}")).collect();
        out!("limits    {}", limits.join(", "));
    }
    out!();
    let imports: Vec<_> =
        list("imports").iter().map(|i| vec![table::cell(&i["name"]), table::cell(&i["class"])]).collect();
    table::print(&["import", "class"], &imports);
    out!();
    let rows: Vec<_> =
        list("guarantees").iter().map(|g| vec![table::cell(&g["effect"]), table::cell(&g["happens"])]).collect();
    table::print(&["effect", "happens"], &rows);
}

/// What a deployer should know.
pub(super) fn print_warnings(document: &Value) {
    for warning in document["warnings"].as_array().into_iter().flatten() {
        out!("note: {}", table::cell(warning));
    }
}
