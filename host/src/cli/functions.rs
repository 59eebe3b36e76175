//! `semel functions`: what is deployed.

use serde_json::Value;

use super::client::Server;
use super::{inspect, table};

/// List deployed functions, or show one
#[derive(Debug, clap::Args)]
pub(crate) struct Functions {
    /// Show this one
    name: Option<String>,
    /// One JSON document
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: Server,
}

impl Functions {
    pub(crate) async fn execute(self) -> anyhow::Result<()> {
        if let Some(name) = &self.name {
            let document = self.server.get(&["v1", "functions", name], &[]).await?;
            if self.json {
                return table::json(&document);
            }
            let paused = if document["paused"] == true { ", paused" } else { "" };
            out!("{name}, version {}{paused}", document["version"]);
            inspect::print(&document);
            print_schedules(&document);
            print_versions(&document);
            return Ok(());
        }
        let document = self.server.get(&["v1", "functions"], &[]).await?;
        if self.json {
            return table::json(&document);
        }
        let functions = document["functions"].as_array().cloned().unwrap_or_default();
        let row = |function: &Value| {
            let routes = function["routes"].as_array().cloned().unwrap_or_default();
            let routes: Vec<String> = routes.iter().map(|route| table::cell(&route["path"])).collect();
            let mut cells: Vec<String> =
                ["name", "version", "contract", "label"].iter().map(|key| table::cell(&function[key])).collect();
            cells.push(if function["paused"] == true { "paused".into() } else { "active".into() });
            cells.push(routes.join(" "));
            cells.push(schedules(function).iter().map(|cron| table::cell(&cron["next"])).min().unwrap_or_default());
            cells
        };
        table::print(
            &["name", "version", "contract", "label", "state", "routes", "next"],
            &functions.iter().map(row).collect::<Vec<_>>(),
        );
        Ok(())
    }
}

fn schedules(function: &Value) -> Vec<Value> {
    function["cron"].as_array().cloned().unwrap_or_default()
}

fn print_schedules(document: &Value) {
    let row =
        |cron: &Value| ["schedule", "timezone", "missed", "next", "last"].map(|key| table::cell(&cron[key])).into();
    let rows: Vec<Vec<String>> = schedules(document).iter().map(row).collect();
    if !rows.is_empty() {
        out!();
        table::print(&["schedule", "time zone", "missed", "next", "last"], &rows);
    }
}

fn print_versions(document: &Value) {
    let versions = document["versions"].as_array().cloned().unwrap_or_default();
    let row = |version: &Value| {
        let active = if version["active"] == true { "active" } else { "" };
        let cells = ["version", "deployed_at", "contract", "label"].map(|key| table::cell(&version[key]));
        let digest = table::cell(&version["digest"]).chars().take(12).collect();
        cells.into_iter().chain([digest, active.to_owned()]).collect()
    };
    out!();
    table::print(
        &["version", "deployed", "contract", "label", "digest", ""],
        &versions.iter().map(row).collect::<Vec<Vec<String>>>(),
    );
}
