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
        let facts = document["database"].as_array().cloned().unwrap_or_default();
        let well = facts.iter().all(|fact| fact["advice"].is_null());
        if self.json {
            table::json(&document)?;
            return Ok(well);
        }
        let row = |fact: &serde_json::Value| {
            let verdict = if fact["advice"].is_null() { "ok".to_owned() } else { cell(&fact["advice"]) };
            vec![cell(&fact["name"]), cell(&fact["value"]), verdict]
        };
        table::print(&["what", "is", "verdict"], &facts.iter().map(row).collect::<Vec<_>>());
        Ok(well)
    }
}
