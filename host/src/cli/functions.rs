//! `semel functions`: what is deployed.

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
            out!("{name}, version {}", document["version"]);
            inspect::print(&document);
            return Ok(());
        }
        let document = self.server.get(&["v1", "functions"], &[]).await?;
        if self.json {
            return table::json(&document);
        }
        let functions = document["functions"].as_array().cloned().unwrap_or_default();
        let row = |function: &serde_json::Value| {
            let routes = function["routes"].as_array().cloned().unwrap_or_default();
            let routes: Vec<String> = routes.iter().map(|route| table::cell(&route["path"])).collect();
            let mut cells: Vec<String> =
                ["name", "version", "contract", "label"].iter().map(|key| table::cell(&function[key])).collect();
            cells.push(routes.join(" "));
            cells
        };
        table::print(
            &["name", "version", "contract", "label", "routes"],
            &functions.iter().map(row).collect::<Vec<_>>(),
        );
        Ok(())
    }
}
