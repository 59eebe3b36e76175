//! `semel doctor`: is everything as it should be, and what to do if not.

use super::client::Server;
use super::table::{self, cell};

/// Check a running host and its database
#[derive(Debug, clap::Args)]
pub(crate) struct Doctor {
    /// One JSON document
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: Server,
}

impl Doctor {
    /// Whether all is well.
    pub(crate) async fn execute(self) -> anyhow::Result<bool> {
        let document = self.server.get(&["v1", "health"], &[]).await?;
        let well = document["well"] == true;
        if self.json {
            table::json(&document)?;
            return Ok(well);
        }
        let row = |fact: &serde_json::Value| {
            ["about", "name", "value", "verdict", "advice"].map(|column| cell(&fact[column])).to_vec()
        };
        let facts = document["facts"].as_array().map(Vec::as_slice).unwrap_or_default();
        table::print(&["about", "what", "is", "verdict", "what to do"], &facts.iter().map(row).collect::<Vec<_>>());
        Ok(well)
    }
}
